// What every command takes that runs a model from a config: CONFIG, --set, --local-ranks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/config/resolve.h"
#include "launch/process/session.h"

namespace tessera {

class Command;    // launch/commands/options.h
class RunConfig;  // launch/run.proto

struct RunArguments {
  std::string config;
  std::vector<std::string> overrides;
  int local_ranks = 0;

  void add_to(Command& command);
};

// Of the tokenizer that the config names, else of the token shards; 0 when there is neither. Where no data are needed,
// a tokenizer that is not there is no mistake: the config may give the vocabulary itself.
int64_t tokenizer_vocabulary(const RunConfig& config, Surroundings::Data data);

// Reads the config, starts the job's ranks, resolves the config against them and its tokenizer (once a process, also
// where its ranks are threads), and runs body on every rank, each with a config and a layout of its own. Returns body's result on this process's first rank. Throws UsageError, DataError, and what body throws.
int run_with_config(const RunArguments& arguments, Surroundings::Data data,
                    const std::function<int(RunConfig& config, const Layout& layout, Session& session)>& body);

}  // namespace tessera
