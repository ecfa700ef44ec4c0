#include "launch/assembly.h"

#include "launch/run.pb.h"
#include "tensor/ops/gemm.h"

namespace tessera {
namespace {

ModelShape shape_of(const RunConfig& config, const Mesh& mesh) {
  return model_shape(config.model(), mesh.extent(Axis::Tp), mesh.coordinate(Axis::Tp),
                     config.data().micro_batch_size() * config.data().sequence_length(), compute_dtype(config));
}

// Microbatches that are alive at once: one, as every pipeline has one stage.
constexpr int kLiveMicrobatches = 1;

}  // namespace

DType compute_dtype(const RunConfig& config) {
  switch (config.run().compute_dtype()) {
    case RunSection::F64:
      return DType::F64;
    case RunSection::F32:
      return DType::F32;
    case RunSection::BF16:
      return DType::BF16;
    case RunSection::FP8:
      break;
  }
  throw UsageError("run.compute_dtype = FP8 needs a GPU with FP8 matrix units; choose F64, F32 or BF16");
}

Assembly::Assembly(const RunConfig& config, Comm& world, int threads)
    : microbatches_per_step_(config.data().global_batch_size() / config.data().micro_batch_size()),
      mesh_(world, MeshShape::resolve(config.parallel(), world.size())),
      context_({.threads = threads}),
      model_(shape_of(config, mesh_), kLiveMicrobatches) {
  const DType compute = model_.shape().compute;
  model_.allocate(context_, mesh_.tp());
  context_.resize_workspace(model_.workspace_bytes(context_));
  optimizer_ = std::make_unique<ZeroOptimizer>(
      context_, mesh_, model_.parameters(), config.optimizer(),
      ZeroOptimizer::Options{
          .seed = config.run().seed(), .compute = compute, .zero_stage = config.parallel().zero_stage()});
}

std::vector<MemoryLine> Assembly::memory() const {
  return {{"weights", model_.weights_bytes()},
          {"gradients", optimizer_->gradient_arena().capacity()},
          {"optimizer state", optimizer_->arena().capacity()},
          {"activations", model_.activations_bytes()},
          {"workspace", context_.workspace().capacity()},
          {"matrix library scratch", context_.matrix_library().scratchpad_bytes()}};
}

int64_t Assembly::arena_bytes() const {
  int64_t bytes = 0;
  for (const MemoryLine& line : memory()) bytes += line.bytes;
  return bytes;
}

double Assembly::step_flops(int64_t pairs) const {
  const ModelShape& shape = model_.shape();
  // Of one rank; the vocabulary's rows may be shared unevenly, so its part is counted from the whole.
  const int64_t head_here = gemm_flops(shape.slots, shape.vocab_rows().size(), shape.hidden);
  const int64_t head = gemm_flops(shape.slots, shape.vocab, shape.hidden);
  const double matrices =
      static_cast<double>(model_.cost().matrix_flops - head_here) * shape.tp + static_cast<double>(head);
  const double attention = static_cast<double>(attention_forward_flops(pairs, shape.head_dim)) *
                           static_cast<double>(shape.heads * shape.layers);
  return 3 * (static_cast<double>(microbatches_per_step_) * matrices + attention);
}

}  // namespace tessera
