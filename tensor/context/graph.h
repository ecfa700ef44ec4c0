// Work of a stream that is recorded once and queued again by one call, where the host would else make hundreds.
//
// Recorded are kernels with the arguments that they were given then (pointers, sizes, numbers), and copies and fills of
// device memory: what changes from one time to the next must lie in device memory that the arguments point to. A wait
// of the host, a wait for another stream, and a copy between host and device cannot be recorded; they throw
// InternalError, and the recording is given up.
#pragma once

#include "tensor/context/threads.h"
#include "tensor/cuda/stream.h"

namespace tessera::cuda {

class Graph {
 public:
  // Records what `work` queues on the stream; none of it runs. Throws what work throws, and InternalError when CUDA
  // refuses.
  Graph(const Stream& stream, FunctionRef<void()> work);
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph();

  // Queues all of it.
  void launch(const Stream& stream) const;

 private:
  void* handle_ = nullptr;  // cudaGraphExec_t
};

}  // namespace tessera::cuda
