// tessera doctor: what this machine has and what is missing.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
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

void print_findings(const std::vector<Finding>& findings) {
  Table table({{"finding", Column::Align::Left}, {"verdict", Column::Align::Left}, {"value", Column::Align::Left}});
  size_t width = std::string_view("finding").size();
  for (const Finding& finding : findings) width = std::max(width, finding.name.size());
  for (const Finding& finding : findings) {
    const std::string below =
        finding.advice.empty() ? "" : fmt::format("{:<{}}           -> {}\n", "", width, finding.advice);
    table.add({finding.name, word(finding.verdict), finding.value}, {.below = below});
  }
  table.print();
}

// The words of the table's first column are the keys.
void print_json(const std::vector<Finding>& findings) {
  Json object;
  object.set("host", host_name());
  object.set("training_is_possible", can_train(findings));
  for (const Finding& finding : findings) {
    object.set(finding.name,
               Json::Object{{"verdict", word(finding.verdict)}, {"value", finding.value}, {"advice", finding.advice}});
  }
  print_json(object);
}

}  // namespace

void add_doctor(Command& program) {
  Command command = program.add_command("doctor", "Tells what this machine has for training and what is missing.");
  const auto as_json = std::make_shared<bool>(false);
  command.add_json(*as_json);
  command.runs([as_json] {
    const std::vector<Finding> findings = judge(examine_machine(std::filesystem::current_path().string()));
    print_findings(findings);
    fmt::print("\ntraining is {}possible on {}\n", can_train(findings) ? "" : "not ", host_name());
    if (*as_json) print_json(findings);
    return can_train(findings) ? 0 : kAnswerIsNo;
  });
}

}  // namespace tessera
