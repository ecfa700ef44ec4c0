// tessera data build | inspect: text and JSONL to token shards, and what token shards hold.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "data/shards/build.h"
#include "data/shards/token_shard.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/output_directory.h"
#include "launch/commands/table.h"
#include "launch/run/tokenizer_file.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct BuildArguments {
  BuildOptions options;
  std::string tokenizer;
  bool force = false, skip_binary = false, skip_broken_lines = false, as_json = false;
};

// A line on standard error every two seconds.
class ProgressLine {
 public:
  void operator()(const BuildResult& so_far) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::seconds(2)) return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double megabytes = static_cast<double>(so_far.corpus.bytes) * 1e-6;
    fmt::print(stderr, "data build: {}, {:.0f} MB, {} tokens, {:.1f} MB/s\n",
               counted(so_far.corpus.documents, "document"), megabytes,
               with_thousands(so_far.train.tokens + so_far.validation.tokens), megabytes / seconds);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
};

void report_skipped(const CorpusReport& report) {
  constexpr size_t kMost = 10;
  if (report.empty_documents > 0) fmt::print(stderr, "skipped {}\n", counted(report.empty_documents, "empty document"));
  if (report.byte_order_marks > 0)
    fmt::print(stderr, "dropped {}\n", counted(report.byte_order_marks, "byte order mark"));
  if (report.broken_lines > 0)
    fmt::print(stderr, "skipped {}, of which the first is {}\n", counted(report.broken_lines, "broken line"),
               report.first_broken_line);
  for (size_t i = 0; i < std::min(report.skipped.size(), kMost); ++i)
    fmt::print(stderr, "skipped {}\n", report.skipped[i]);
  if (report.skipped.size() > kMost) fmt::print(stderr, "skipped {} more\n", report.skipped.size() - kMost);
}

int run_build(const BuildArguments& arguments) {
  BuildOptions options = arguments.options;
  if (arguments.force) options.existing = ExistingShards::Replace;
  if (arguments.skip_binary) options.corpus.binary_files = BinaryFiles::Skip;
  if (arguments.skip_broken_lines) options.corpus.broken_lines = BrokenLines::Skip;
  const Tokenizer tokenizer = open_tokenizer(arguments.tokenizer);
  make_output_directory(fs::absolute(fs::path(options.output) / "").lexically_normal().parent_path().parent_path(),
                        "token shards into " + options.output);
  const BuildResult result = build_shards(options, tokenizer, ProgressLine());
  report_skipped(result.corpus);
  Table splits({{"split", Column::Align::Left}, {"documents"}, {"tokens"}, {"shards"}});
  Json out;
  for (const auto& [name, size] : {std::pair{"train", result.train}, std::pair{"validation", result.validation}}) {
    splits.add({name, size.documents, size.tokens, size.shards});
    out.set(name, Json::Object{{"documents", size.documents}, {"tokens", size.tokens}, {"shards", size.shards}});
  }
  splits.print();
  if (arguments.as_json) {
    out.set("bytes", result.corpus.bytes)
        .set("empty_documents", result.corpus.empty_documents)
        .set("skipped", result.corpus.skipped)
        .set("broken_lines", result.corpus.broken_lines)
        .set("byte_order_marks", result.corpus.byte_order_marks)
        .set("fingerprint", tokenizer.fingerprint());
    print_json(out);
  }
  return 0;
}

struct InspectArguments {
  std::string path, tokenizer;
  int64_t sample = 0;
  bool verify = false, as_json = false;
};

struct DocumentLengths {
  int64_t median = 0, longest = 0;
};

DocumentLengths document_lengths(const TokenShard& shard) {
  std::vector<int64_t> lengths;
  for (int64_t d = 0; d < shard.documents(); ++d) lengths.push_back(shard.document(d).size());
  const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 2);
  std::nth_element(lengths.begin(), middle, lengths.end());
  return {*middle, *std::max_element(lengths.begin(), lengths.end())};
}

// Every *.h5 at or below the path, so that the output of `data build` can be named as a whole.
std::vector<std::string> find_shards(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw DataError(fmt::format("{}: no such file or directory", path));
  if (!fs::is_directory(status)) return {path};
  std::vector<std::string> shards;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    // Directories that a build has not finished are no data.
    if (entry->path().extension() == ".building") entry.disable_recursion_pending();
    if (entry->path().extension() == ".h5") shards.push_back(entry->path().string());
  }
  if (error) throw IoError(fmt::format("cannot read {}: {}", path, error.message()));
  if (shards.empty()) throw DataError(fmt::format("{}: no token shard (*.h5)", path));
  std::sort(shards.begin(), shards.end());
  return shards;
}

// The first kMostTokens tokens of a document, as text on one line.
std::string decode_document(const TokenShard& shard, int64_t document, const Tokenizer& tokenizer) {
  constexpr int64_t kMostTokens = 64;
  const Interval place = shard.document(document);
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(place.size(), kMostTokens)));
  shard.read(place.begin, tokens);
  // JSON's quoting keeps line ends and control characters visible, whatever the document holds.
  return Json(tokenizer.decode(tokens)).text() + (place.size() > kMostTokens ? " ..." : "");
}

int run_inspect(const InspectArguments& arguments) {
  if (arguments.sample > 0 && arguments.tokenizer.empty())
    throw UsageError("--sample needs --tokenizer, to turn tokens into text");
  std::optional<Tokenizer> tokenizer;
  if (!arguments.tokenizer.empty()) tokenizer.emplace(open_tokenizer(arguments.tokenizer));

  int64_t tokens = 0, documents = 0, size = 0;
  Table table({{"tokens"},
               {"documents"},
               {"dtype"},
               {"bytes"},
               {"median"},
               {"longest"},
               {"fingerprint", Column::Align::Left},
               {"shard", Column::Align::Left}});
  for (const std::string& path : find_shards(arguments.path)) {
    const TokenShard shard(path);
    const TokenShardInfo& info = shard.info();
    if (tokenizer && tokenizer->fingerprint() != info.tokenizer_fingerprint)
      throw DataError(fmt::format("token shard {} was made with tokenizer {}, but {} is {}", path,
                                  info.tokenizer_fingerprint, arguments.tokenizer, tokenizer->fingerprint()));
    if (arguments.verify) shard.verify();
    const DocumentLengths lengths = document_lengths(shard);
    const int64_t shown = std::min(arguments.sample, info.documents);
    std::string samples;
    for (int64_t i = 0; i < shown; ++i) {
      const int64_t document = i * info.documents / shown;  // spread evenly
      samples += fmt::format("  document {}: {}\n", document, decode_document(shard, document, *tokenizer));
    }
    table.add({info.tokens, info.documents, name(info.dtype), info.file_bytes, lengths.median, lengths.longest,
               info.tokenizer_fingerprint, path},
              {.below = samples,
               .members = Json::Object{{"vocab_size", info.vocab_size}, {"end_of_text", info.end_of_text}}});
    tokens += info.tokens;
    documents += info.documents;
    size += info.file_bytes;
  }
  const std::string verified = arguments.verify ? ", all verified" : "";
  table.total({tokens,
               documents,
               {},
               size,
               {},
               {},
               {},
               "in " + counted(static_cast<int64_t>(table.rows()), "shard") + verified});
  table.print();
  if (arguments.as_json) {
    print_json(Json::Object{{"shards", table.json()},
                            {"tokens", tokens},
                            {"documents", documents},
                            {"bytes", size},
                            {"verified", arguments.verify}});
  }
  return 0;
}

void add_build(Command data) {
  const auto arguments = std::make_shared<BuildArguments>();
  BuildOptions& options = arguments->options;
  options.threads = usable_cores();
  Command build = data.add_command("build", "Turn text files and JSONL (also .gz, .zst) into token shards");
  build.add_option("--input", &options.inputs, "Files or directories, in this order").required();
  build.add_option("--tokenizer", &arguments->tokenizer, "tokenizer.json, or `bytes`").required();
  build.add_option("--output", &options.output, "Directory that gets train/ and validation/").required();
  build.add_option("--validation-fraction", &options.validation_fraction, "Share of the documents for validation")
      .shows_default();
  build.add_option("--seed", &options.seed, "Of the split into train and validation").shows_default();
  build.add_option("--shard-tokens", &options.shard_tokens, "Close a shard after this many tokens").shows_default();
  build.add_option("--text-key", &options.corpus.text_key, "Key of the text in JSONL").shows_default();
  build.add_option("--max-document-bytes", &options.corpus.max_document_bytes, "A longer document is an error")
      .shows_default()
      .positive();
  build.add_option("--threads", &options.threads, "That encode").shows_default();
  build.add_flag("--skip-binary", arguments->skip_binary, "Skip files that are not UTF-8 text instead of stopping");
  build.add_flag("--skip-broken-lines", arguments->skip_broken_lines,
                 "Skip lines of JSONL files that have no text, and count them, instead of stopping");
  build.add_flag("--force", arguments->force, "Replace existing shards in the output");
  build.add_json(arguments->as_json);
  build.runs([arguments] { return run_build(*arguments); });
}

void add_inspect(Command data) {
  const auto arguments = std::make_shared<InspectArguments>();
  Command inspect = data.add_command("inspect", "Print what token shards hold");
  inspect.add_option("path", &arguments->path, "A shard, or a directory").required();
  inspect.add_flag("--verify", arguments->verify, "Read everything: hashes, document offsets, vocabulary");
  inspect.add_option("--tokenizer", &arguments->tokenizer, "tokenizer.json or `bytes`: must be the shards' own");
  inspect.add_option("--sample", &arguments->sample, "Print the beginning of this many documents of each shard")
      .not_negative();
  inspect.add_json(arguments->as_json);
  inspect.runs([arguments] { return run_inspect(*arguments); });
}

}  // namespace

void add_data(Command& program) {
  Command data = program.add_group("data", "Build and inspect token shards");
  add_build(data);
  add_inspect(data);
}

}  // namespace tessera
