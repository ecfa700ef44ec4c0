// Work that is queued over and over, on a GPU as a graph: the host makes one call instead of one a kernel.
//
// The first time that a key comes its work runs as it is (libraries choose algorithms then, kernels are loaded), the
// second time it is recorded, and from then on the recording is queued and `work` is not called. So work must do
// nothing on the host that counts but queue, and all that it passes to kernels must follow from the key; matrix FLOPs
// are counted as if it had been called (Context::matrix_flops). See tensor/context/graph.h for what can be recorded.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "tensor/context/context.h"
#include "tensor/context/threads.h"

namespace tessera {

namespace cuda {
class Graph;
}

class Replay {
 public:
  // Pointers and numbers that tell one piece of work from another.
  using Key = std::vector<uint64_t>;

  void run(Context& context, const Key& key, FunctionRef<void()> work);

 private:
  struct Recording {
    // Null after the first time; a shared pointer only because it destroys what is not defined here.
    std::shared_ptr<cuda::Graph> graph;
    int64_t matrix_flops = 0;
  };
  std::map<Key, Recording> recordings_;
};

}  // namespace tessera
