// Runs the built program as users do: a process of its own, alone or under mpirun.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace tessera::testing {

struct ProgramResult {
  int code = -1;       // exit code; 128 + n for signal n
  std::string output;  // standard output and standard error, as they came
};

// `tessera ARGUMENTS`, on `ranks` ranks under mpirun, or without it when ranks is 0. Arguments are words of a shell.
ProgramResult run_program(const std::string& arguments, int ranks = 0);

// The command that run_program runs; what begins a command of so many ranks; and any command of the shell.
std::string program_command(const std::string& arguments, int ranks = 0);
std::string mpirun(int ranks);
ProgramResult run_shell(const std::string& command);

// Starts it without waiting, and kills all of it (-9) once `file` holds `text` (or after a minute: -1). Returns the
// exit code.
int kill_program_when(const std::string& arguments, int ranks, const std::string& file, const std::string& text);

// Starts it, calls `action` with the process that was started (mpirun's, when there are ranks) once `file` holds
// `text`, and waits for the end; after two minutes it is killed, and the code is -1. The action is not called when the
// program ends before.
ProgramResult disturb_program(const std::string& arguments, int ranks, const std::string& file, const std::string& text,
                              const std::function<void(int process)>& action);

// Roots of the sources and of this build, without a slash at the end.
std::string source_dir();
std::string binary_dir();

// Content of a file; empty when it is missing.
std::string read_whole(const std::string& path);

}  // namespace tessera::testing
