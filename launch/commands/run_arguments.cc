#include "launch/commands/run_arguments.h"

#include <fmt/format.h>

#include <filesystem>
#include <mutex>
#include <optional>

#include "data/shards/token_dataset.h"
#include "launch/commands/options.h"
#include "launch/config/idle_fields.h"
#include "launch/config/read.h"
#include "launch/run.pb.h"
#include "launch/run/gpu.h"
#include "launch/run/tokenizer_file.h"

namespace tessera {

int64_t tokenizer_vocabulary(const RunConfig& config, Surroundings::Data data) {
  const std::string& tokenizer = config.data().tokenizer();
  if (data == Surroundings::Data::NotNeeded) {
    const bool there = tokenizer == "bytes" || (!tokenizer.empty() && std::filesystem::exists(tokenizer));
    return there ? open_tokenizer(tokenizer).vocab_size() : 0;
  }
  if (config.data().has_tokenizer()) return open_tokenizer(tokenizer).vocab_size();
  return config.data().train_size() > 0 ? vocab_size(open_sources(config.data().train())) : 0;
}

void RunArguments::add_to(Command& command) {
  command.add_option("CONFIG", &config, "Run config: protobuf text format (configs/)").required();
  command.add_option("--set", &overrides, "Override a field: path=value, e.g. model.hidden_size=512")
      .value_name("PATH=VALUE")
      .one_each_time();
  command.add_option("--local-ranks", &local_ranks, "Run this many ranks as threads of one process (for debugging)");
}

int run_with_config(const RunArguments& arguments, Surroundings::Data data,
                    const std::function<int(RunConfig& config, const Layout& layout, Session& session)>& body) {
  RunConfig config;
  Origins origins;
  read_config(arguments.config, arguments.overrides, config, origins);
  const SessionOptions options{.threads = config.run().threads(), .local_ranks = arguments.local_ranks};
  Surroundings surroundings{.tokenizer_vocab_size = tokenizer_vocabulary(config, data), .data = data};
  set_gpu_environment(arguments.local_ranks);
  find_gpus(surroundings);
  std::mutex mutex;
  RunConfig resolved = config;
  std::optional<Layout> layout;
  return run_session(options, [&](Session& session) {
    RunConfig own;
    {
      const std::lock_guard lock(mutex);
      if (!layout) {
        surroundings.world_size = session.world.size();
        layout = resolve(resolved, origins, surroundings);
      }
      own = resolved;
    }
    if (session.world.rank() == 0 && data == Surroundings::Data::Needed) {
      for (const std::string& line : idle_fields(config, own)) fmt::print(stderr, "tessera: warning: {}\n", line);
    }
    return body(own, *layout, session);
  });
}

}  // namespace tessera
