// MPI's requests and error codes under our own rules. Internal to comm_mpi.
#pragma once

#include <fmt/format.h>
#include <mpi.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "tensor/check.h"

namespace tessera {

inline void check_mpi(int code, const char* call, const std::string& group) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw IoError(fmt::format("{} in group {} failed: {}", call, group, std::string(text, length)));
}

// Sends and receives under way.
struct Posted {
  void finish(const std::string& group) {
    for (std::vector<MPI_Request>* requests : {&receives, &sends}) {
      check_mpi(MPI_Waitall(static_cast<int>(requests->size()), requests->data(), MPI_STATUSES_IGNORE), "MPI_Waitall",
                group);
    }
    clear();
  }
  void withdraw() noexcept {
    for (MPI_Request& request : sends) {  // these cannot be cancelled everywhere; the job is about to end
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
    }
    for (MPI_Request& request : receives) {
      if (request == MPI_REQUEST_NULL) continue;
      MPI_Cancel(&request);
      MPI_Wait(&request, MPI_STATUS_IGNORE);  // returns: received or cancelled
    }
    clear();
  }
  void clear() noexcept {
    sends.clear();
    receives.clear();
  }

  std::vector<MPI_Request> sends, receives;
};

// Objects that are used again: all that were ever needed at once.
template <class T>
class Pool {
 public:
  template <class... Arguments>
  T* take(Arguments&&... arguments) {
    if (free_.empty()) {
      free_.reserve(all_.size() + 1);  // so that give_back() never allocates
      free_.push_back(&all_.emplace_back(std::forward<Arguments>(arguments)...));
    }
    T* object = free_.back();
    free_.pop_back();
    return object;
  }
  void give_back(T* object) noexcept { free_.push_back(object); }

 private:
  std::deque<T> all_;
  std::vector<T*> free_;
};

}  // namespace tessera
