// What attention's messages between context-parallel ranks are, for ContextGroup (parallel/context/group.h).
#pragma once

namespace tessera {

enum ContextTag : int {
  kContextData,  // keys and values, and what else goes out to be attended
  kContextSums,  // sums of gradients that travel with a ring's blocks
  kContextHome,  // results on their way back to the rank whose tokens they are of
};

}  // namespace tessera
