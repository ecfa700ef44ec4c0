#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "tensor/check.h"
#include "tensor/context/graph.h"

namespace tessera::cuda {
namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // or whoever asks next takes it for theirs
    const std::string message =
        std::string(what) + ": " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")";
    if (error == cudaErrorMemoryAllocation) throw DeviceMemoryError(message);
    throw InternalError(message);
  }
}

}  // namespace

Graph::Graph(const Stream& stream, FunctionRef<void()> work) {
  const auto of = static_cast<cudaStream_t>(stream.handle());
  cudaGraph_t graph = nullptr;
  // Other threads (a save's copies) may do as they like meanwhile.
  check(cudaStreamBeginCapture(of, cudaStreamCaptureModeThreadLocal), "recording a graph");
  try {
    work();
  } catch (...) {
    if (cudaStreamEndCapture(of, &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(of, &graph), "recording a graph");
  cudaGraphExec_t made = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "making a graph");
  handle_ = made;
}

Graph::~Graph() {
  if (const cudaError_t error = cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_));
      error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "ending a graph: %s\n", cudaGetErrorString(error));
  }
}

void Graph::launch(const Stream& stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(handle_), static_cast<cudaStream_t>(stream.handle())),
        "starting a graph");
}

}  // namespace tessera::cuda
