// A program of its own, started without a shell.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tessera {

class Process {
 public:
  // Standard output and error go to the end of `log`, standard input is empty. It has a process group of its own, so
  // that the terminal's Ctrl-C does not reach it, and is killed when this process dies. Throws IoError.
  Process(const std::vector<std::string>& command, const std::string& log);
  // Kills it, and waits.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The exit code once it has ended, 128 + n for signal n.
  std::optional<int> poll();
  int wait();
  void signal(int number);  // to its group

 private:
  int pid_ = -1;
  std::optional<int> code_;
};

// Runs a command to its end. Returns the exit code; standard output goes to `output`, standard error to this process's.
int run_process(const std::vector<std::string>& command, std::string& output);

// The path of the running program.
std::string own_program();

}  // namespace tessera
