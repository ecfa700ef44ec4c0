#include "tests/support/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

namespace tessera::testing {
namespace {

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

}  // namespace

std::string source_dir() { return TESSERA_SOURCE_DIR; }
std::string binary_dir() { return TESSERA_BINARY_DIR; }

std::string program_command(const std::string& arguments, int ranks) {
  const std::string program = binary_dir() + "/tessera " + arguments;
  if (ranks == 0) return program;
  return mpirun(ranks) + program;
}

std::string mpirun(int ranks) {
  return std::string(TESSERA_MPIEXEC) + " " + TESSERA_MPIEXEC_FLAGS + " -np " + std::to_string(ranks) + " ";
}

ProgramResult run_program(const std::string& arguments, int ranks) {
  return run_shell(program_command(arguments, ranks));
}

ProgramResult run_shell(const std::string& command) {
  ProgramResult result;
  FILE* pipe = popen(("{ " + command + "; } 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) return result;
  char buffer[4096];
  size_t count;
  while ((count = fread(buffer, 1, sizeof(buffer), pipe)) > 0) result.output.append(buffer, count);
  result.code = exit_code(pclose(pipe));
  return result;
}

int kill_program_when(const std::string& arguments, int ranks, const std::string& file, const std::string& text) {
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);  // a process group of its own, so that all of it can be killed at once
    const int null = open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) dup2(null, fd);
    execl("/bin/sh", "sh", "-c", ("exec " + program_command(arguments, ranks)).c_str(), nullptr);
    _exit(127);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  bool seen = false;
  while (!seen && std::chrono::steady_clock::now() < deadline && waitpid(child, nullptr, WNOHANG) == 0) {
    seen = read_whole(file).find(text) != std::string::npos;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(-child, SIGKILL);  // mpirun; its ranks notice the lost connection and end within about two seconds
  int status = 0;
  waitpid(child, &status, 0);
  std::this_thread::sleep_for(std::chrono::seconds(3));
  return seen ? exit_code(status) : -1;
}

ProgramResult disturb_program(const std::string& arguments, int ranks, const std::string& file, const std::string& text,
                              const std::function<void(int process)>& action) {
  char output[] = "/tmp/tessera_output_XXXXXX";
  const int out = mkstemp(output);
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(out, 1);
    dup2(out, 2);
    // Tests that were started in the background of a shell ignore some signals, and what they start would, too.
    for (const int number : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) signal(number, SIG_DFL);
    execl("/bin/sh", "sh", "-c", ("exec " + program_command(arguments, ranks)).c_str(), nullptr);
    _exit(127);
  }
  close(out);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  int status = 0;
  bool acted = false, late = false;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (!acted && read_whole(file).find(text) != std::string::npos) {
      action(child);
      acted = true;
    }
    if (!late && std::chrono::steady_clock::now() > deadline) {
      kill(-child, SIGKILL);
      late = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ProgramResult result{late ? -1 : exit_code(status), read_whole(output)};
  unlink(output);
  return result;
}

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace tessera::testing
