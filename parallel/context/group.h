// The context-parallel group as mixers use it.
#pragma once

#include "parallel/comm/messages.h"

namespace tessera {

// The group along cp with room for its messages.
class ContextGroup {
 public:
  // heads: the most tensors that a layer has under way at once, each a head's.
  ContextGroup(Comm& comm, int64_t heads);

  int rank() const { return comm_.rank(); }

  // Keys and values (and what else goes out to be attended), sums of gradients that travel with a ring's blocks, and
  // results on their way home; apart, so that each keeps its own order between two ranks.
  Messages data_in, data_out, sums_in, sums_out, home_in, home_out;

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
};

}  // namespace tessera
