#include "launch/run/run_lock.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHeader = "tessera lock 1";

[[noreturn]] void fail(const char* what, const std::string& path) {
  throw IoError(fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}

// Clock ticks from the machine's boot to the start of a process; nothing when it does not run.
std::optional<int64_t> start_of(int64_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::stringstream text;
  if (!(text << file.rdbuf())) return std::nullopt;
  // The second field is the program's name in brackets, which may hold blanks and brackets.
  const std::string whole = text.str();
  const size_t end = whole.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream fields(whole.substr(end + 1));
  std::string state, skipped;
  fields >> state;
  if (state == "Z" || state == "X") return std::nullopt;  // It has ended, and nobody has asked how.
  constexpr int kBetween = 18;                            // fields 4 to 21
  for (int i = 0; i < kBetween; ++i) fields >> skipped;
  int64_t start = 0;
  if (!(fields >> start)) return std::nullopt;
  return start;
}

// Two processes see each other by their ids when they have this in common.
std::string machine() {
  std::string boot = "unknown-boot";
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::array<char, 64> name{};
  const ssize_t size = ::readlink("/proc/self/ns/pid", name.data(), name.size() - 1);
  return boot + "/" + (size > 0 ? std::string(name.data(), static_cast<size_t>(size)) : "unknown-namespace");
}

struct LockFile {
  LockHolder holder;
  double seconds = 0;  // since 1970, by the file server's clock
};

double modified(const struct stat& status) {
  return static_cast<double>(status.st_mtim.tv_sec) + 1e-9 * static_cast<double>(status.st_mtim.tv_nsec);
}

// Nothing where there is no such file. A file that is no lock has no live holder here: its age decides.
std::optional<LockFile> read_lock(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    if (errno == ENOENT || errno == ESTALE) return std::nullopt;
    fail("read", path);
  }
  std::array<char, 4096> text{};
  const ssize_t size = ::read(file, text.data(), text.size());
  struct stat status {};
  const bool known = ::fstat(file, &status) == 0;
  ::close(file);
  if (size < 0 || !known) return std::nullopt;
  const std::string whole(text.data(), static_cast<size_t>(size));
  return LockFile{LockHolder::from_text(whole).value_or(LockHolder{"an unknown host", 0, "", 0, "", "unreadable"}),
                  modified(status)};
}

bool holds(const std::string& path, const LockHolder& holder) {
  const std::optional<LockFile> file = read_lock(path);
  return file && file->holder == holder;
}

void write_whole(const std::string& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) fail("make", path);
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const bool synced = written && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  if (synced) return;
  ::unlink(path.c_str());
  errno = error;
  fail("write", path);
}

// The file server's clock, as it stamps a file that is written now.
double server_seconds(const std::string& own_file) {
  struct stat status {};
  if (::utimensat(AT_FDCWD, own_file.c_str(), nullptr, 0) != 0 || ::stat(own_file.c_str(), &status) != 0)
    fail("renew", own_file);
  return modified(status);
}

// A reply that was lost makes a network file system say that a link failed which it made: the count of names knows.
bool link_to(const std::string& own_file, const std::string& name) {
  struct stat before {
  }, after{};
  if (::stat(own_file.c_str(), &before) != 0) fail("read", own_file);
  if (::link(own_file.c_str(), name.c_str()) == 0) return true;
  const int error = errno;
  if (::stat(own_file.c_str(), &after) == 0 && after.st_nlink > before.st_nlink) return true;
  if (error == EEXIST) return false;
  errno = error;
  fail("lock (link)", name);
}

}  // namespace

std::string LockHolder::to_text() const {
  return fmt::format("{}\nhost {}\nprocess {}\nmachine {}\nstart {}\nsince {}\ntoken {}\n", kHeader, host, process,
                     machine, start, since, token);
}

std::optional<LockHolder> LockHolder::from_text(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != kHeader) return std::nullopt;
  LockHolder holder;
  while (std::getline(lines, line)) {
    const size_t blank = line.find(' ');
    if (blank == std::string::npos) return std::nullopt;
    const std::string key = line.substr(0, blank), value = line.substr(blank + 1);
    if (key == "host") holder.host = value;
    if (key == "process") holder.process = std::strtoll(value.c_str(), nullptr, 10);
    if (key == "machine") holder.machine = value;
    if (key == "start") holder.start = std::strtoll(value.c_str(), nullptr, 10);
    if (key == "since") holder.since = value;
    if (key == "token") holder.token = value;
  }
  // A token becomes part of a file's name.
  const bool whole = !holder.token.empty() && holder.token.find_first_not_of("0123456789abcdef") == std::string::npos;
  return whole ? std::optional(holder) : std::nullopt;
}

LockHolder this_holder() {
  std::random_device random;
  return {.host = host_name(),
          .process = ::getpid(),
          .machine = machine(),
          .start = start_of(::getpid()).value_or(0),
          .since = fmt::format("{:%F %T} UTC", fmt::gmtime(std::chrono::system_clock::now())),
          .token = fmt::format("{:08x}{:08x}", random(), random())};
}

bool alive(const LockHolder& holder, double seconds_since_beat) {
  if (holder.machine == machine()) return start_of(holder.process) == holder.start;
  return seconds_since_beat < kStaleSeconds;
}

std::optional<LockHolder> RunLock::acquire(const std::string& name, int depth) {
  constexpr int kDeepest = 16;  // Each level is a process that died in the middle of taking over.
  for (int attempt = 0; attempt < 100 && depth < kDeepest; ++attempt) {
    if (link_to(own_file_, name)) return std::nullopt;
    const std::optional<LockFile> found = read_lock(name);
    if (!found) continue;  // It was released between the two calls.
    if (alive(found->holder, server_seconds(own_file_) - found->seconds)) return found->holder;
    const std::string after = fmt::format("{}.after-{}", path_, found->holder.token);
    if (const auto other = acquire(after, depth + 1)) return other;
    if (!holds(name, found->holder)) {
      ::unlink(after.c_str());
      continue;
    }
    if (::rename(after.c_str(), name.c_str()) != 0) fail("take over", name);
    if (!holds(name, own_)) continue;
    if (depth == 0) taken_from_ = found->holder;
    return std::nullopt;
  }
  throw IoError(
      fmt::format("cannot lock {}: what it holds changes all the time; remove it and the files {}.after-* "
                  "when no process trains there",
                  name, path_));
}

RunLock::RunLock(const std::string& directory) : path_(directory + "/" + kLockName), own_(this_holder()) {
  for (fs::path missing = directory; !missing.empty() && !fs::exists(missing); missing = missing.parent_path())
    made_.insert(made_.begin(), missing.string());
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw IoError(fmt::format("cannot make {}: {}", directory, error.message()));
  own_file_ = fmt::format("{}.{}.{}", path_, own_.host, own_.token);
  std::optional<LockHolder> other;
  try {
    write_whole(own_file_, own_.to_text());
    other = acquire(path_, 0);
  } catch (...) {
    ::unlink(own_file_.c_str());
    remove_made_directories();
    throw;
  }
  ::unlink(own_file_.c_str());
  if (other) {
    throw UsageError(fmt::format(
        "{} is being trained by process {} on {}, since {}: one process at a time may write a run; end that one (its "
        "file STOP saves and ends it), or give this run another run.dir. The lock of a process that was killed is "
        "taken over: at once on its own host, from another one {:.0f} s after its last sign of life",
        directory, other->process, other->host, other->since, kStaleSeconds));
  }
  thread_ = std::thread([this] { beat(); });
}

void RunLock::beat() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(kBeatSeconds), [this] { return stop_; })) {
    try {
      if (!holds(path_, own_)) {
        lost_ = true;
        return;
      }
    } catch (const IoError&) {
      continue;  // A file system that cannot be read now says nothing of who holds the lock.
    }
    ::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);  // Where this fails, the next beat tries again.
  }
}

RunLock::~RunLock() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  try {
    if (holds(path_, own_)) ::unlink(path_.c_str());
  } catch (const IoError&) {
    // The next start finds that the process has ended.
  }
  remove_made_directories();
}

void RunLock::remove_made_directories() {
  for (auto made = made_.rbegin(); made != made_.rend(); ++made) ::rmdir(made->c_str());
}

}  // namespace tessera
