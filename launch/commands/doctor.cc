// tessera doctor: what this machine has and what is missing.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/commands/command.h"
#include "launch/process/diagnosis.h"
#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::Good:
      return "good";
    case Verdict::Note:
      return "note";
    case Verdict::Missing:
      return "MISSING";
  }
  throw InternalError("a verdict that is none");
}

void print_table(const std::vector<Finding>& findings) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.name.size());
  for (const Finding& finding : findings) {
    fmt::print("{:<{}}  {:<7}  {}\n", finding.name, width, word(finding.verdict), finding.value);
    if (!finding.advice.empty()) fmt::print("{:<{}}           -> {}\n", "", width, finding.advice);
  }
}

void print_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json object;
  object["host"] = host_name();
  object["training_is_possible"] = can_train(findings);
  for (const Finding& finding : findings) {
    object[finding.name] = {{"verdict", word(finding.verdict)}, {"value", finding.value}, {"advice", finding.advice}};
  }
  fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

void add_doctor(CLI::App& program, Selected& selected) {
  CLI::App* command = program.add_subcommand("doctor", "Tells what this machine has for training and what is missing.");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "also print one JSON object, as the last line");
  command->callback([json, &selected] {
    selected = [json] {
      const std::vector<Finding> findings = judge(examine_machine(std::filesystem::current_path().string()));
      print_table(findings);
      fmt::print("\ntraining is {}possible on {}\n", can_train(findings) ? "" : "not ", host_name());
      if (*json) print_json(findings);
      return can_train(findings) ? 0 : 1;
    };
  });
}

}  // namespace tessera
