// One run, one writer: the file LOCK in a run directory says which process trains there.
//
// The protocol needs what shared file systems promise too: link() makes a name or fails because it is there, rename()
// replaces one at once, and the file server alone stamps times. No clocks of two hosts are compared.
//
//   LOCK                made by link() from a file that is written already, so that nobody reads half of one. It names
//                       host, process, the process's start, since when, and a random token. A thread of the holder
//                       renews its time every kBeatSeconds.
//   alive               A holder on this machine is alive while its process runs (a pid that was given again has
//                       another start). A holder elsewhere is alive while its file's time is less than kStaleSeconds
//                       before that of a file that was written just now beside it.
//   taking over         Who finds LOCK of a dead holder with token T must first get LOCK.after-T by these same rules:
//                       one process alone gets it. When LOCK still holds T, LOCK.after-T is renamed to LOCK.
//   release             LOCK is removed if it still holds one's own token.
//
// A holder that was stopped for so long that another took over learns it at its next beat: lost() says so, and it is to
// write nothing more.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace tessera {

inline constexpr const char* kLockName = "LOCK";
inline constexpr double kBeatSeconds = 10;
inline constexpr double kStaleSeconds = 120;

// What a lock file says of its holder.
struct LockHolder {
  std::string host;
  int64_t process = 0;
  std::string machine;  // boot and namespace in which the process id means something
  int64_t start = 0;    // of the process, in the kernel's clock ticks since the machine was booted
  std::string since;    // when the lock was taken: "2026-11-30 14:03:21 UTC"
  std::string token;

  std::string to_text() const;
  // Nothing where the text is no lock's.
  static std::optional<LockHolder> from_text(const std::string& text);
  bool operator==(const LockHolder&) const = default;
};

// This process, from now on, with a token of its own.
LockHolder this_holder();

// Whether the holder may still write: what is known of its process here, else how long ago its file was renewed.
bool alive(const LockHolder& holder, double seconds_since_beat);

class RunLock {
 public:
  // Locks the directory, which is made when missing. Throws UsageError naming the holder when another process trains
  // there; IoError when the directory cannot be written to.
  explicit RunLock(const std::string& directory);
  // Releases the lock, and removes directories that were made for it and hold nothing.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // The dead holder whose lock this one took over.
  const std::optional<LockHolder>& taken_from() const { return taken_from_; }

  // Whether another process took the lock over. Costs a load.
  bool lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  // Makes `name` this process's lock; nothing on success, else who holds it.
  std::optional<LockHolder> acquire(const std::string& name, int depth);
  void beat();
  void remove_made_directories();

  std::string path_;
  std::vector<std::string> made_;  // directories, outermost first
  LockHolder own_;
  std::string own_file_;  // a whole lock file under a name of its own, from which link() makes locks
  std::optional<LockHolder> taken_from_;
  std::atomic<bool> lost_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace tessera
