#include "checkpoint/reread.h"

#include "parallel/comm/agreement.h"

namespace tessera {

Rereader::~Rereader() {
  if (thread_.joinable()) thread_.join();
}

void Rereader::start(const std::string& path) {
  TESSERA_CHECK(!in_flight_, "one checkpoint is read again at a time");
  path_ = path;
  failure_ = nullptr;
  read_ = false;
  in_flight_ = true;
  thread_ = std::thread([this] {
    try {
      found_ = verify_part(storage_, path_, world_.rank(), world_.size());
    } catch (...) {
      failure_ = std::current_exception();
    }
    read_ = true;
  });
}

std::optional<Reread> Rereader::poll() {
  if (!in_flight_ || world_.max(read_ ? 0.0 : 1.0) > 0) return std::nullopt;
  return finish();
}

Reread Rereader::finish() {
  TESSERA_CHECK(in_flight_, "there is a checkpoint that is read again");
  thread_.join();
  in_flight_ = false;
  auto failure = try_together(world_, [&] {
    if (failure_) std::rethrow_exception(failure_);
    if (!found_.ok()) throw CheckpointError(found_.problems[0]);
  });
  if (!failure) {
    failure = try_together(world_, [&] {
      if (world_.rank() != 0) return;
      reach(failpoint_, "verified");
      mark_verified(storage_, path_);
      reach(failpoint_, "marked");
    });
  }
  return {path_, failure ? failure->message : std::string()};
}

}  // namespace tessera
