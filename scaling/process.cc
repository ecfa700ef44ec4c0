#include "scaling/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tensor/check.h"

namespace tessera {
namespace {

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

std::vector<char*> words_of(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  return words;
}

// Between fork and exec only what is safe there.
[[noreturn]] void become(char* const* words, int out, int error, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  if (out >= 0) ::dup2(out, 1);
  if (error >= 0) ::dup2(error, 2);
  ::execvp(words[0], words);
  ::_exit(127);
}

}  // namespace

Process::Process(const std::vector<std::string>& command, const std::string& log) {
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) throw IoError(fmt::format("cannot open {}: {}", log, std::strerror(errno)));
  const std::vector<char*> words = words_of(command);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) become(words.data(), out, out, parent);
  const int error = errno;
  ::close(out);
  if (pid_ < 0) throw IoError(fmt::format("cannot start {}: {}", fmt::join(command, " "), std::strerror(error)));
}

Process::~Process() {
  if (pid_ <= 0 || poll()) return;
  signal(SIGKILL);
  wait();
}

std::optional<int> Process::poll() {
  int status = 0;
  if (!code_ && ::waitpid(pid_, &status, WNOHANG) == pid_) code_ = exit_code(status);
  return code_;
}

int Process::wait() {
  int status = 0;
  while (!code_) {
    if (::waitpid(pid_, &status, 0) == pid_) code_ = exit_code(status);
  }
  return *code_;
}

void Process::signal(int number) {
  // The group may not be there yet, right after the start.
  if (::kill(-pid_, number) != 0) ::kill(pid_, number);
}

int run_process(const std::vector<std::string>& command, std::string& output) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw IoError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  const std::vector<char*> words = words_of(command);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) become(words.data(), ends[1], -1, parent);
  ::close(ends[1]);
  char buffer[4096];
  for (ssize_t count; (count = ::read(ends[0], buffer, sizeof(buffer))) != 0;) {
    if (count < 0 && errno != EINTR) break;
    if (count > 0) output.append(buffer, static_cast<size_t>(count));
  }
  ::close(ends[0]);
  if (child < 0) throw IoError("cannot start " + command.front());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_code(status);
}

std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

}  // namespace tessera
