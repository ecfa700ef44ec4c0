// Builds token shards out of a corpus: OUTPUT/train/shard-*.h5 and OUTPUT/validation/shard-*.h5.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/shards/corpus.h"

namespace tessera {

class Tokenizer;

// What to do when OUTPUT/train or OUTPUT/validation is there already.
enum class ExistingShards { Refuse, Replace };

struct BuildOptions {
  std::vector<std::string> inputs;
  CorpusOptions corpus;
  std::string output;
  double validation_fraction = 0.01;        // in [0, 1); 0: everything is for training, no validation directory
  uint64_t seed = 1;                        // of the split
  int64_t shard_tokens = int64_t{1} << 28;  // a shard is closed at the first document's end after these
  int threads = 1;                          // that encode
  ExistingShards existing = ExistingShards::Refuse;
};

struct SplitSize {
  int64_t documents = 0, tokens = 0, shards = 0;
};

struct BuildResult {
  SplitSize train, validation;
  CorpusReport corpus;
};

// Document number d of the corpus is for validation when uniform(seed, d) < validation_fraction; inside each split
// documents keep the corpus's order, so the result is a function of the options and the corpus alone (not of threads).
//
// Shards are written to OUTPUT/{train,validation}.building; both are renamed when the whole corpus is done, so a
// directory with the right name is complete. `progress` is called about once for each MiB of text.
//
// Throws UsageError: a fraction outside [0, 1), shard_tokens or threads below 1, existing shards under Refuse, or under
// Replace a directory that holds anything else; DataError: what Corpus throws, or a split without a document (it says
// which fraction would put one there); IoError. After an error OUTPUT is as it was before.
BuildResult build_shards(const BuildOptions& options, const Tokenizer& tokenizer,
                         const std::function<void(const BuildResult& so_far)>& progress = {});

}  // namespace tessera
