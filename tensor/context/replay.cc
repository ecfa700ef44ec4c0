#include "tensor/context/replay.h"

#include "tensor/context/graph.h"
#include "tensor/context/runtime.h"
#include "tensor/has_cuda.h"

namespace tessera {

void Replay::run(Context& context, const Key& key, FunctionRef<void()> work) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) {
      const auto found = recordings_.find(key);
      if (found == recordings_.end()) {
        work();
        recordings_.emplace(key, Recording());
        return;
      }
      Recording& recording = found->second;
      if (recording.graph == nullptr) {
        const int64_t before = context.matrix_flops();
        recording.graph = std::make_shared<cuda::Graph>(context.cuda().stream(), work);
        recording.matrix_flops = context.matrix_flops() - before;
      } else {
        context.count_matrix_flops(recording.matrix_flops);
      }
      return recording.graph->launch(context.cuda().stream());
    }
  }
  work();
}

}  // namespace tessera
