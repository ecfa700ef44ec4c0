// tessera tokenizer train | encode | decode: learn a tokenizer.json from text, and use one.
#include "data/tokenizer/tokenizer.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "data/shards/corpus.h"
#include "data/tokenizer/bpe_trainer.h"
#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/output_directory.h"
#include "launch/commands/table.h"
#include "launch/run/tokenizer_file.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

constexpr int64_t kByteVocabulary = 257;  // the bytes and the end of text

SplitPattern split_pattern(const std::string& name) {
  if (name == "llama3") return SplitPattern::Llama3;
  if (name == "qwen2") return SplitPattern::Qwen2;
  if (name == "gpt4o") return SplitPattern::Gpt4o;
  return SplitPattern::Gpt2;
}

std::string read_all(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    if (std::cin.bad()) throw IoError("cannot read standard input");
    return std::move(text).str();
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError(fmt::format("{}: no such file, or it cannot be opened", path));
  if (file.peek() == std::ifstream::traits_type::eof()) {
    if (file.bad()) throw IoError(fmt::format("{}: cannot be read", path));
    return {};
  }
  text << file.rdbuf();
  if (file.bad() || text.bad()) throw IoError(fmt::format("{}: cannot be read", path));
  return std::move(text).str();
}

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw IoError("cannot write to standard output");
}

struct TrainArguments {
  BpeTrainerOptions options;
  CorpusOptions corpus;
  std::vector<std::string> inputs;
  std::string output, pattern = "gpt2";
  bool vocab_size_given = false, bytes = false, skip_binary = false, skip_broken_lines = false, as_json = false;
};

struct Trained {
  Tokenizer tokenizer;
  BpeTrainerReport report;
};

Trained train_bytes(const TrainArguments& arguments, const BpeTrainer::NextDocument& next) {
  if (arguments.vocab_size_given && arguments.options.vocab_size != kByteVocabulary)
    throw UsageError(fmt::format("--vocab-size {} does not go with --bytes, whose vocabulary has {} tokens",
                                 arguments.options.vocab_size, kByteVocabulary));
  BpeTrainerReport report;
  for (std::string document; !arguments.inputs.empty() && next(document);) {
    ++report.documents;
    report.bytes += static_cast<int64_t>(document.size());
  }
  report.sampled_bytes = report.tokens = report.bytes;
  return {Tokenizer::bytes(), report};
}

// What the user would want to know beyond the table.
void warn(const TrainArguments& arguments, const Trained& trained, const CorpusReport& corpus) {
  for (const std::string& path : corpus.skipped) fmt::print(stderr, "skipped {}\n", path);
  if (corpus.broken_lines > 0)
    fmt::print(stderr, "skipped {} broken lines, of which the first is {}\n", corpus.broken_lines,
               corpus.first_broken_line);
  const BpeTrainerReport& report = trained.report;
  if (report.pruned_pieces > 0)
    fmt::print(stderr, "the text has more different pieces than are held: {} rare ones ({} bytes) were left out\n",
               report.pruned_pieces, report.pruned_bytes);
  if (!arguments.bytes && trained.tokenizer.vocab_size() < arguments.options.vocab_size)
    fmt::print(stderr, "the vocabulary has {} tokens, not {}: no further pair occurs twice\n",
               trained.tokenizer.vocab_size(), arguments.options.vocab_size);
}

int run_train(const TrainArguments& arguments) {
  if (arguments.inputs.empty() && !arguments.bytes) throw UsageError("--input is needed: the text to learn from");
  // Before the text is read: learning from much of it takes long.
  make_output_directory(std::filesystem::absolute(arguments.output).parent_path(), "the tokenizer " + arguments.output);
  CorpusOptions options = arguments.corpus;
  if (arguments.skip_binary) options.binary_files = BinaryFiles::Skip;
  if (arguments.skip_broken_lines) options.broken_lines = BrokenLines::Skip;
  std::unique_ptr<Corpus> corpus;
  if (!arguments.inputs.empty()) corpus = std::make_unique<Corpus>(arguments.inputs, options);
  Document read;
  const auto next = [&](std::string& document) {
    if (!corpus->next(read)) return false;
    document.swap(read.text);
    return true;
  };
  const auto train = [&]() -> Trained {
    if (arguments.bytes) return train_bytes(arguments, next);
    BpeTrainerOptions trainer_options = arguments.options;
    trainer_options.pattern = split_pattern(arguments.pattern);
    BpeTrainer trainer(trainer_options);
    Tokenizer tokenizer = trainer.train(next);
    return {std::move(tokenizer), trainer.report()};
  };
  const Trained trained = train();
  trained.tokenizer.save(arguments.output);
  warn(arguments, trained, corpus ? corpus->report() : CorpusReport{});

  const BpeTrainerReport& report = trained.report;
  // A byte tokenizer without text: one byte is one token, whatever the text.
  const double bytes_per_token = report.tokens == 0 ? 1.0
                                                    : static_cast<double>(report.sampled_bytes - report.pruned_bytes) /
                                                          static_cast<double>(report.tokens);
  const std::string fingerprint = trained.tokenizer.fingerprint();
  Facts facts;
  facts.add("vocab_size", trained.tokenizer.vocab_size())
      .add("merges", report.merges)
      .add("documents", report.documents)
      .add("bytes", report.bytes)
      .add("sampled_bytes", report.sampled_bytes, "that it was learned from")
      .add("pruned_pieces", report.pruned_pieces, "rare ones that were left out")
      .add("bytes_per_token", real(bytes_per_token, ".3f"))
      .add("fingerprint", fingerprint);
  facts.print();
  if (arguments.as_json) print_json(facts.json());
  return 0;
}

struct EncodeArguments {
  std::string tokenizer, path = "-";
  bool as_json = false;
};

int run_encode(const EncodeArguments& arguments) {
  const Tokenizer tokenizer = open_tokenizer(arguments.tokenizer);
  const std::string text = read_all(arguments.path);
  std::vector<int32_t> tokens;
  tokenizer.encode(text, tokens);
  if (arguments.as_json) {
    const Json out = Json::Object{
        {"ids", tokens}, {"tokens", tokens.size()}, {"bytes", text.size()}, {"fingerprint", tokenizer.fingerprint()}};
    write_out(out.text() + "\n");
  } else {
    write_out(fmt::format("{}\n", fmt::join(tokens, " ")));
  }
  return 0;
}

int run_decode(const std::string& name) {
  const Tokenizer tokenizer = open_tokenizer(name);
  std::istringstream words(read_all("-"));
  std::vector<int32_t> tokens;
  for (std::string word; words >> word;) {
    int32_t token = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), token);
    if (error != std::errc() || end != word.data() + word.size())
      throw DataError(fmt::format("\"{}\" is not a token id; write integers, separated by spaces", word.substr(0, 80)));
    tokens.push_back(token);
  }
  write_out(tokenizer.decode(tokens));
  return 0;
}

void add_train_tokenizer(Command& parent) {
  const auto arguments = std::make_shared<TrainArguments>();
  BpeTrainerOptions& options = arguments->options;
  options.threads = std::max(1, usable_cores());
  Command train = parent.add_command("train", "Learn a byte-level BPE tokenizer from text (also .jsonl, .gz, .zst)");
  train.add_option("--input", &arguments->inputs, "Files or directories");
  train.add_option("--output", &arguments->output, "The tokenizer.json to write").required();
  const Option vocab_size =
      train.add_option("--vocab-size", &options.vocab_size, "Tokens: 256 bytes, the merges, and <|endoftext|>")
          .shows_default();
  train.add_flag("--bytes", arguments->bytes, "The plain byte tokenizer: nothing is learned, 257 tokens");
  train.add_option("--sample-bytes", &options.sample_bytes, "Learn from this much text, drawn evenly; 0: from all")
      .shows_default();
  train.add_option("--threads", &options.threads, "That count pieces; the result does not depend on it")
      .shows_default();
  train.add_option("--pattern", &arguments->pattern, "How text is split into pieces")
      .shows_default()
      .one_of({"gpt2", "llama3", "qwen2", "gpt4o"});
  train.add_option("--text-key", &arguments->corpus.text_key, "Key of the text in JSONL").shows_default();
  train.add_flag("--skip-binary", arguments->skip_binary, "Skip files that are not UTF-8 text instead of stopping");
  train.add_flag("--skip-broken-lines", arguments->skip_broken_lines,
                 "Skip lines of JSONL files that have no text, and count them, instead of stopping");
  train.add_json(arguments->as_json);
  train.runs([arguments, vocab_size] {
    arguments->vocab_size_given = vocab_size.given();
    return run_train(*arguments);
  });
}

}  // namespace

void add_tokenizer(Command& program) {
  Command tokenizer = program.add_group("tokenizer", "Train tokenizers, encode and decode text");
  add_train_tokenizer(tokenizer);

  const auto encode_arguments = std::make_shared<EncodeArguments>();
  Command encode = tokenizer.add_command("encode", "Print the token ids of a text; no end-of-text is added");
  encode.add_option("--tokenizer", &encode_arguments->tokenizer, "tokenizer.json, or `bytes`").required();
  encode.add_option("file", &encode_arguments->path, "The text; - is standard input").shows_default();
  encode.add_flag("--json", encode_arguments->as_json, "Print a JSON object instead");
  encode.runs([encode_arguments] { return run_encode(*encode_arguments); });

  const auto decode_name = std::make_shared<std::string>();
  Command decode = tokenizer.add_command("decode", "Turn token ids on standard input back into text");
  decode.add_option("--tokenizer", decode_name.get(), "tokenizer.json, or `bytes`").required();
  decode.runs([decode_name] { return run_decode(*decode_name); });
}

}  // namespace tessera
