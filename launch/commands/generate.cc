// tessera generate: continues a prompt from any checkpoint, whatever layout wrote it.
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/config/resolve.h"
#include "launch/process/session.h"
#include "launch/run.pb.h"
#include "launch/run/gpu.h"
#include "launch/run/sampler.h"
#include "launch/run/saved_run.h"
#include "parallel/batch_memory.h"
#include "tensor/context/copy.h"

namespace tessera {
namespace {

struct GenerateArguments {
  std::string checkpoint, prompt = "The ", tokenizer;
  int64_t max_tokens = 200;
  SamplerOptions sampler;
  bool as_json = false;
};

// The model run on the last `capacity` tokens of a text, for the logits after the last one.
class NextToken {
 public:
  NextToken(Assembly& parts, int64_t capacity) : parts_(parts), memory_(capacity) {
    const int64_t vocab = parts.shape().vocab;
    const DType dtype = parts.shape().accumulation();
    const Device device = parts.context().device();
    logits_ = Arena("logits", device, Arena::bytes({1, vocab}, dtype));
    host_logits_ = Arena("logits", Device::Cpu, logits_.capacity());
    row_ = logits_.take({1, vocab}, dtype);
    host_row_ = host_logits_.take({1, vocab}, dtype);
    values_.resize(vocab);
  }

  std::span<const double> logits(std::span<const int32_t> text) {
    const int64_t used = std::min(std::ssize(text), memory_.slots());
    memory_.clear();
    std::copy(text.end() - used, text.end(), memory_.array(&Batch::tokens).begin());
    memory_.add_document(0, used, 0);
    parts_.stage(0).logits(parts_.context(), memory_.view(), used - 1, row_);
    copy(parts_.context(), row_, host_row_);
    dispatch_float(row_.dtype(), [&]<class T>(T) {
      for (size_t i = 0; i < values_.size(); ++i) values_[i] = static_cast<double>(host_row_.as<T>()[i]);
    });
    return values_;
  }

 private:
  Assembly& parts_;
  BatchMemory memory_;
  Arena logits_, host_logits_;
  Tensor row_, host_row_;
  std::vector<double> values_;
};

// The longest part of `bytes` that ends with a whole UTF-8 character; tokens may end inside one.
size_t whole_characters(const std::string& bytes) {
  size_t end = bytes.size();
  for (size_t back = 1; back <= std::min<size_t>(4, end); ++back) {
    const auto byte = static_cast<unsigned char>(bytes[end - back]);
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    const size_t length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return length > back ? end - back : end;
  }
  return end;
}

int run_generate(const GenerateArguments& arguments) {
  return run_session({}, [&](Session& session) {
    if (session.world.size() != 1) throw UsageError("generate runs on one rank: start it without mpirun");
    RunConfig config;
    CheckpointInfo info;
    const std::string checkpoint = find_checkpoint(session.world, arguments.checkpoint);
    read_checkpoint_config(checkpoint, config, info);
    config.clear_parallel();
    config.mutable_run()->set_device(RunSection::AUTO);
    config.mutable_data()->set_micro_batch_size(1);
    config.mutable_data()->set_global_batch_size(1);
    Surroundings surroundings{.world_size = 1, .data = Surroundings::Data::NotNeeded};
    find_gpus(surroundings);
    const Layout layout = resolve(config, {}, surroundings);
    const std::string tokenizer_name = !arguments.tokenizer.empty() ? arguments.tokenizer : config.data().tokenizer();
    if (tokenizer_name.empty()) throw UsageError("the run names no data.tokenizer: give one with --tokenizer");
    const Tokenizer tokenizer = open_run_tokenizer(tokenizer_name, saved_tokenizer(checkpoint, info));
    std::vector<int32_t> text;
    tokenizer.encode(arguments.prompt, text);
    if (text.empty()) throw UsageError("the prompt is empty: give some text with --prompt");

    Sampler sampler(arguments.sampler);
    Assembly parts(config, layout, session);
    load_weights(session.world, checkpoint, parts);
    if (const int64_t seen = config.data().sequence_length(); static_cast<int64_t>(text.size()) > seen)
      fmt::print(stderr, "tessera: warning: the prompt has {}, and the model sees the last {} alone\n",
                 counted(static_cast<int64_t>(text.size()), "token"), with_thousands(seen));
    NextToken model(parts, config.data().sequence_length());
    std::string pending = arguments.prompt, all;
    for (int64_t i = 0; i <= arguments.max_tokens; ++i) {
      const size_t whole = i < arguments.max_tokens ? whole_characters(pending) : pending.size();
      if (!arguments.as_json) {
        fmt::print("{}", pending.substr(0, whole));
        std::fflush(stdout);
      }
      all += pending.substr(0, whole);
      pending.erase(0, whole);
      if (i == arguments.max_tokens) break;
      const int32_t next = sampler.next(model.logits(text), static_cast<uint64_t>(i));
      if (next == tokenizer.end_of_text()) break;
      text.push_back(next);
      pending += tokenizer.decode({&next, 1});
    }
    if (arguments.as_json) {
      print_json(Json::Object{{"checkpoint", checkpoint}, {"step", info.step}, {"text", all}});
    } else {
      fmt::print("\n");
    }
    return 0;
  });
}

}  // namespace

void add_generate(Command& program) {
  const auto arguments = std::make_shared<GenerateArguments>();
  Command command = program.add_command("generate", "Continue a prompt with a trained model");
  command.add_option("CHECKPOINT", &arguments->checkpoint, "A checkpoint, or a run directory: its newest").required();
  command.add_option("--prompt", &arguments->prompt, "Text to continue").shows_default();
  command.add_option("--tokenizer", &arguments->tokenizer, "tokenizer.json, when the run's has moved");
  command.add_option("--max-tokens", &arguments->max_tokens, "Tokens to add at most").shows_default().not_negative();
  command.add_option("--temperature", &arguments->sampler.temperature, "0: always the most likely token")
      .shows_default();
  command.add_option("--top-p", &arguments->sampler.top_p, "Choose among the likeliest tokens of this probability")
      .shows_default();
  command.add_option("--seed", &arguments->sampler.seed, "Of the choices").shows_default();
  command.add_flag("--json", arguments->as_json, "Print one JSON object");
  command.runs([arguments] { return run_generate(*arguments); });
}

}  // namespace tessera
