// Trust: a checkpoint that was just published is read again from the disk while training goes on, each rank a part of
// its shards, and marked VERIFIED when all of it is what was saved.
#pragma once

#include <atomic>
#include <exception>
#include <optional>
#include <string>
#include <thread>

#include "checkpoint/format/failpoint.h"
#include "checkpoint/format/storage.h"
#include "checkpoint/verify.h"
#include "parallel/comm/comm.h"

namespace tessera {

struct Reread {
  std::string path;
  std::string problem;  // the first that was found, with its rank; empty: verified, and marked so
  bool ok() const { return problem.empty(); }
};

class Rereader {
 public:
  // Both must outlive the rereader.
  Rereader(Comm& world, Storage& storage, Failpoint failpoint = {})
      : world_(world), storage_(storage), failpoint_(std::move(failpoint)) {}
  ~Rereader();  // waits for the thread
  Rereader(const Rereader&) = delete;
  Rereader& operator=(const Rereader&) = delete;

  // Begins; none may be in flight. To be called on every rank.
  void start(const std::string& path);

  // The same on every rank.
  bool in_flight() const { return in_flight_; }

  // What was found, once every rank has read its part; nothing before. Collective.
  std::optional<Reread> poll();
  // The same, but waits.
  Reread finish();

 private:
  Comm& world_;
  Storage& storage_;
  Failpoint failpoint_;
  bool in_flight_ = false;
  std::string path_;
  std::thread thread_;
  std::atomic<bool> read_ = false;
  Verification found_;
  std::exception_ptr failure_;
};

}  // namespace tessera
