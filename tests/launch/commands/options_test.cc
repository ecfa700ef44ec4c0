#include "launch/commands/options.h"

#include <gtest/gtest.h>

#include "tensor/check.h"
#include "tests/launch/commands/command_run.h"

namespace tessera {
namespace {

int shown = 0;

void add_show(Command& program) {
  Command group = program.add_group("show", "Shows");
  Command number = group.add_command("number", "A number");
  number.add_option("--of", &shown, "Which").required().positive();
  number.runs([] { return shown; });
  group.add_command("name", "A name").runs([] { return 1; });
}

std::string complaint(const std::vector<std::string>& words) {
  try {
    testing::run_command(add_show, words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "fine";
}

TEST(Options, RunTheChosenCommand) {
  EXPECT_EQ(testing::run_command(add_show, {"show", "number", "--of", "7"}).code, 7);
  EXPECT_TRUE(testing::run_command(add_show, {"show", "--help"}).has("number"));
}

TEST(Options, NameAWordThatIsNoCommand) {
  EXPECT_EQ(complaint({"shwo", "number"}),
            "tessera shwo: there is no such command; did you mean \"show\"?\nRun with --help to see what is possible.");
  EXPECT_NE(
      complaint({"show", "numbre"}).find("tessera show numbre: there is no such command; did you mean \"number\"?"),
      std::string::npos);
  EXPECT_NE(complaint({"show", "zzzz"}).find("choose one of number, name"), std::string::npos);
}

TEST(Options, NameWhatIsMissingOrWrong) {
  EXPECT_NE(complaint({}).find("required"), std::string::npos);
  EXPECT_NE(complaint({"show", "number"}).find("--of"), std::string::npos);
  EXPECT_EQ(complaint({"show", "number", "--of", "-7"}),
            "--of: -7: must be above 0\nRun with --help to see what is possible.");
  EXPECT_NE(complaint({"show", "number", "--of", "7", "--colour"}).find("--colour"), std::string::npos);
}

}  // namespace
}  // namespace tessera
