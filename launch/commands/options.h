// The command line: commands, their options and flags, and what each of them runs. It stands before CLI11, whose header
// takes seconds to compile; the types here are what the commands of this program need of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tessera {

// Where the value of an option goes. The variable must live as long as what the command runs: commands keep their
// arguments in a shared_ptr that the body of Command::runs holds.
using Destination = std::variant<std::string*, int*, int64_t*, uint64_t*, double*, std::vector<std::string>*,
                                 std::vector<int64_t>*, std::vector<double>*>;

// One option or flag, for saying more about it.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& required();
  // The help shows the value that the variable has.
  Option& shows_default();
  Option& value_name(const std::string& name);

  // Which values are taken; others end with a message that names the option.
  Option& positive();
  Option& not_negative();
  Option& within(double low, double high);
  Option& one_of(const std::vector<std::string>& names);

  // A list: one value each time that the option is given; all in one word, separated by commas; exactly n words.
  Option& one_each_time();
  Option& with_commas();
  Option& words(int n);

  Option& needs(const Option& other);
  Option& excludes(const Option& other);

  // Whether the command line has it; known once it was read.
  bool given() const;

 private:
  CLI::Option* option_;
};

// A command, or a group of them. A handle: copies mean the same command.
class Command {
 public:
  Command(CLI::App* app, std::function<int()>* selected) : app_(app), selected_(selected) {}

  Command add_command(const std::string& name, const std::string& help);
  // A command that consists of others: one of these must be given.
  Command add_group(const std::string& name, const std::string& help);

  // name: "--steps", or "CONFIG" for an argument without a name, which are read in the order in which they were added.
  Option add_option(const std::string& name, Destination destination, const std::string& help);
  Option add_flag(const std::string& name, bool& destination, const std::string& help);
  // --json, of every command that reports.
  Option add_json(bool& destination);

  // What the program does when this command was chosen. The body returns the exit code and throws what main reports.
  void runs(std::function<int()> body);

 private:
  CLI::App* app_;
  std::function<int()>* selected_;
};

struct ProgramTexts {
  std::string name = "tessera";
  std::string description = {};
  std::string version = {};  // what --version prints; empty: there is no --version
  std::string footer = {};   // the end of the help
};

class CommandLine {
 public:
  // Who prints the help and the version when they are asked for: of the ranks of a job the first alone.
  enum class Help : uint8_t { Printed, Silent };

  explicit CommandLine(const ProgramTexts& texts = {}, Help help = Help::Printed);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // The group to which commands are added.
  Command program() { return {app_.get(), &selected_}; }

  // Reads the words after the program's name. Returns the body of the command that they choose, or one that prints what
  // --help or --version asked for. Throws UsageError that names a command that is none with what was probably meant, an
  // option that is none, or a value that an option does not take.
  std::function<int()> read(const std::vector<std::string>& words);

 private:
  std::unique_ptr<CLI::App> app_;
  Help help_;
  std::function<int()> selected_;
};

}  // namespace tessera
