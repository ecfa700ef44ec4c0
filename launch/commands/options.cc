#include "launch/commands/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "launch/config/suggest.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// A group has no argument without a name, so its first word that is no option must name a command.
bool is_group(const CLI::App& app) { return app.get_require_subcommand_min() > 0; }

// CLI11 would say that a command is required, and not which word it did not know.
void check_commands(const CLI::App& program, const std::vector<std::string>& words) {
  const CLI::App* group = &program;
  std::string path = program.get_name();
  for (const std::string& word : words) {
    if (!is_group(*group)) return;
    if (word.starts_with("-")) continue;
    std::vector<std::string> names;
    const CLI::App* found = nullptr;
    for (const CLI::App* command : group->get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(command->get_name());
      if (command->get_name() == word) found = command;
    }
    if (found == nullptr)
      throw UsageError(fmt::format("{} {}: there is no such command; {}\nRun with --help to see what is possible.",
                                   path, word, did_you_mean(word, names)));
    group = found;
    path += " " + word;
  }
}

// CLI11's own checks print bounds of 309 digits.
CLI::Validator number_check(const std::string& name, const std::string& rule, std::function<bool(double)> fits) {
  return CLI::Validator(
      [rule, fits](const std::string& text) {
        double value = 0;
        const bool ok = CLI::detail::lexical_cast(text, value) && fits(value);
        return ok ? std::string() : fmt::format("{}: must be {}", text, rule);
      },
      name);
}

}  // namespace

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::shows_default() {
  option_->capture_default_str();
  return *this;
}

Option& Option::value_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option& Option::positive() {
  option_->check(number_check("POSITIVE", "above 0", [](double x) { return x > 0; }));
  return *this;
}

Option& Option::not_negative() {
  option_->check(number_check("NONNEGATIVE", "0 or more", [](double x) { return x >= 0; }));
  return *this;
}

Option& Option::within(double low, double high) {
  option_->check(number_check(fmt::format("in [{:g} - {:g}]", low, high), fmt::format("from {:g} to {:g}", low, high),
                              [=](double x) { return x >= low && x <= high; }));
  return *this;
}

Option& Option::one_of(const std::vector<std::string>& names) {
  option_->check(CLI::IsMember(names));
  return *this;
}

Option& Option::one_each_time() {
  option_->expected(1)->take_all();
  return *this;
}

Option& Option::with_commas() {
  option_->delimiter(',');
  return *this;
}

Option& Option::words(int n) {
  option_->expected(n);
  return *this;
}

Option& Option::needs(const Option& other) {
  option_->needs(other.option_);
  return *this;
}

Option& Option::excludes(const Option& other) {
  option_->excludes(other.option_);
  return *this;
}

bool Option::given() const { return option_->count() > 0; }

Command Command::add_command(const std::string& name, const std::string& help) {
  return {app_->add_subcommand(name, help), selected_};
}

Command Command::add_group(const std::string& name, const std::string& help) {
  Command group = add_command(name, help);
  group.app_->require_subcommand(1);
  return group;
}

Option Command::add_option(const std::string& name, Destination destination, const std::string& help) {
  return std::visit([&](auto* value) { return Option(app_->add_option(name, *value, help)); }, destination);
}

Option Command::add_flag(const std::string& name, bool& destination, const std::string& help) {
  return Option(app_->add_flag(name, destination, help));
}

Option Command::add_json(bool& destination) {
  return add_flag("--json", destination, "Also print one JSON object, as the last line");
}

void Command::runs(std::function<int()> body) {
  app_->callback([selected = selected_, body = std::move(body)] { *selected = body; });
}

CommandLine::CommandLine(const ProgramTexts& texts, Help help)
    : app_(std::make_unique<CLI::App>(texts.description, texts.name)), help_(help) {
  if (!texts.version.empty()) app_->set_version_flag("--version", texts.version);
  if (!texts.footer.empty()) app_->footer(texts.footer);
  app_->require_subcommand(1);
}

CommandLine::~CommandLine() = default;

std::function<int()> CommandLine::read(const std::vector<std::string>& words) {
  check_commands(*app_, words);
  selected_ = nullptr;
  std::vector<std::string> reversed(words.rbegin(), words.rend());  // as CLI11 takes a vector
  try {
    app_->parse(reversed);
  } catch (const CLI::Success& asked) {  // --help or --version
    std::ostringstream text;
    app_->exit(asked, text, text);
    return [text = text.str(), help = help_] {
      if (help == Help::Printed) std::cout << text << std::flush;
      return 0;
    };
  } catch (const CLI::ParseError& error) {
    throw UsageError(std::string(error.what()) + "\nRun with --help to see what is possible.");
  }
  TESSERA_CHECK(selected_, "the chosen command has nothing to run");
  return selected_;
}

}  // namespace tessera
