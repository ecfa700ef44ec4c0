// The context-parallel group as mixers use it.
#pragma once

#include <vector>

#include "parallel/comm/messages.h"

namespace tessera {

// The group along cp, with room for its messages. A mixer numbers the kinds of messages that it sends by tags of its
// own, below kTags: those of one tag keep their order between two ranks, and wait for no other tag's.
class ContextGroup {
 public:
  static constexpr int kTags = 8;

  // heads: the most tensors that a layer has under way at once with each rank, each a head's.
  ContextGroup(Comm& comm, int64_t heads);

  int rank() const { return comm_.rank(); }
  Messages& incoming(int tag) { return incoming_.at(tag); }
  Messages& outgoing(int tag) { return outgoing_.at(tag); }

  // Ends the messages of a call before its tensors' memory is given back, also when it throws.
  class Scope {
   public:
    explicit Scope(ContextGroup& group) : group_(group) {}
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ContextGroup& group_;
  };

 private:
  Comm& comm_;
  std::vector<Messages> incoming_, outgoing_;  // by tag
};

}  // namespace tessera
