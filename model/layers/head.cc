#include "model/layers/head.h"

#include <algorithm>

#include "parallel/regions.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm/gemm.h"

namespace tessera {
namespace {

constexpr GemmOptions kLogits{.b = Transpose::Yes};                          // logits = h W^T
constexpr GemmOptions kInput{};                                              // dh = dlogits W
constexpr GemmOptions kWeight{.a = Transpose::Yes, .c = Write::Accumulate};  // dW += dlogits^T h
constexpr int64_t kTileMultiple = 64;

}  // namespace

int64_t Head::tile_tokens(const ModelSizes& shape) {
  const int64_t row = std::max<int64_t>(1, shard_rows(shape.vocab, shape.tp) * size_of(shape.accumulation()));
  const int64_t most = std::max(kTileMultiple, kLogitsBytes / row / kTileMultiple * kTileMultiple);
  const int64_t tiles = (shape.slots + most - 1) / most;
  const int64_t equal = (shape.slots + tiles - 1) / tiles;
  return std::min(shape.slots, (equal + kTileMultiple - 1) / kTileMultiple * kTileMultiple);
}

Head::Head(const ModelShape& shape, Tie tie, Parameter* embedding)
    : shape_(shape),
      norm_(shape, "final_norm"),
      tied_(tie == Tie::SameStage ? embedding : nullptr),
      table_(split_parameter(shape, tie == Tie::Free ? "head" : "embedding", {shape.vocab, shape.hidden})),
      rows_(shape.vocab_rows()) {
  table_.forward_reads_alone = true;
  table_.weight_adds_alone = false;
  table_.tied_to = tie == Tie::OtherStage ? embedding : nullptr;
  if (tie == Tie::OtherRank) table_.replicas = table_.replicas.with(Axis::TiedEnds);
}

void Head::scale_output(Context& context, const Tensor& h) const {
  if (shape_.output_scale != 1) scale(context, shape_.output_scale, h);
}

void Head::forward(LayerRun run, const Batch& batch, const ConstTensor& x, const Saved& saved, double loss_scale,
                   Mode mode, const Tensor& loss) {
  norm_.forward(run.context, x, saved.norm, saved.h);
  scale_output(run.context, saved.h);
  Arena& workspace = run.context.workspace();
  ArenaScope scope(workspace);
  const bool alone = shape_.tp == 1;
  // All tokens' h. A tile of it becomes its own gradient once nothing else reads it.
  const Tensor all = alone ? saved.h : workspace.take({shape_.slots, shape_.hidden}, shape_.compute);
  if (!alone) run.tp.all_gather(saved.h, all);

  const int64_t tile = tile_tokens(shape_);
  const int64_t columns = rows_.size();
  const DType sums_dtype = shape_.accumulation();
  const Tensor batch_loss = workspace.take({1}, DType::F64);  // scaled as a whole
  zero(run.context, batch_loss);
  for (int64_t begin = 0; begin < shape_.slots; begin += tile) {
    const int64_t end = std::min(shape_.slots, begin + tile);
    const std::span<const int32_t> target = batch.targets.subspan(begin, end - begin);
    const Tensor h = all.rows(begin, end);
    ArenaScope inner(workspace);
    const Tensor logits = workspace.take({end - begin, columns}, sums_dtype);
    const Tensor maximum = workspace.take({end - begin}, sums_dtype);
    const Tensor sums = workspace.take({2, end - begin}, sums_dtype);
    gemm(run.context, h, table().value, logits, kLogits);
    cross_entropy_maximum(run.context, logits, maximum);
    run.tp.all_reduce_max(maximum);
    cross_entropy_sums(run.context, logits, target, rows_.begin, maximum, sums);
    run.tp.all_reduce_sum(sums);
    cross_entropy_loss(run.context, target, sums, batch_loss);
    if (mode == Mode::Evaluate) continue;

    const Tensor dlogits =
        shape_.compute == sums_dtype ? logits : workspace.take({end - begin, columns}, shape_.compute);
    cross_entropy_backward(run.context, logits, target, rows_.begin, maximum, sums, loss_scale, dlogits);
    gemm(run.context, dlogits, h, table().gradient, kWeight);
    gemm(run.context, dlogits, table().value, h, kInput);
  }
  if (mode == Mode::Train) scatter_sum_tokens(run.context, run.tp, all, saved.h);
  scale(run.context, loss_scale, batch_loss);
  accumulate(run.context, batch_loss, loss);
}

void Head::backward_input(LayerRun run, const Tensor& x, const Saved& saved) {
  scale_output(run.context, saved.h);
  norm_.backward(run.context, saved.h, x, saved.norm, {}, x);
}

void Head::logits(LayerRun run, const ConstTensor& x, int64_t first, const Tensor& logits) const {
  TESSERA_CHECK_EQ(shape_.tp, 1, "logits of one tp rank");
  ArenaScope scope(run.context.workspace());
  const int64_t rows = logits.dim(0);
  const Tensor h = run.context.workspace().take({rows, shape_.hidden}, shape_.compute);
  const Shape tokens{rows};
  const Norm::Saved saved{run.context.workspace().take(tokens, shape_.accumulation()),
                          run.context.workspace().take(tokens, shape_.accumulation())};
  norm_.forward(run.context, x.rows(first, first + rows), saved, h);
  scale_output(run.context, h);
  gemm(run.context, h, table().value, logits, kLogits);
}

Head::Saved Head::allocate(Arena& arena) const {
  return {norm_.allocate(arena), arena.take({shape_.local_slots(), shape_.hidden}, shape_.compute)};
}

void Head::prepare(Context& context) const {
  const int64_t tile = tile_tokens(shape_), columns = rows_.size();
  const DType compute = shape_.compute, sums = shape_.accumulation();
  const ConstTensor w(nullptr, {columns, shape_.hidden}, compute), dw(nullptr, {columns, shape_.hidden}, sums);
  for (const int64_t rows : {tile, shape_.slots % tile}) {
    const ConstTensor h(nullptr, {rows, shape_.hidden}, compute);
    const ConstTensor z(nullptr, {rows, columns}, sums), dz(nullptr, {rows, columns}, compute);
    gemm_prepare(context, h, w, z, kLogits);
    gemm_prepare(context, dz, h, dw, kWeight);
    gemm_prepare(context, dz, w, h, kInput);
  }
}

int64_t Head::workspace(Target target) const {
  const int64_t tile = tile_tokens(shape_);
  const Shape logits{tile, rows_.size()};
  const DType sums = shape_.accumulation();
  const int64_t loss = gather_workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute) +
                       Arena::bytes(logits, sums) + Arena::bytes({tile}, sums) + Arena::bytes({2, tile}, sums) +
                       Arena::bytes({1}, DType::F64) +
                       (shape_.compute == sums ? 0 : Arena::bytes(logits, shape_.compute));
  return std::max(loss, norm_.workspace(target));
}

Cost Head::cost() const {
  const int64_t elements = shape_.slots * shape_.hidden;
  Cost cost = norm_.cost();
  cost.table_parameters = tied_ ? 0 : rows_.size() * shape_.hidden;
  cost.parameters += cost.table_parameters;
  cost.matrix_flops = gemm_flops(shape_.slots, rows_.size(), shape_.hidden);
  cost.forward_sent = 2 * tp_sent(shape_, elements);
  const int64_t tile = tile_tokens(shape_);
  for (int64_t begin = 0; begin < shape_.slots; begin += tile) {  // maxima, one a token, and sums, two
    const int64_t tokens = std::min(tile, shape_.slots - begin);
    cost.forward_sent += tp_all_reduce_sent(shape_, tokens, shape_.accumulation()) +
                         tp_all_reduce_sent(shape_, 2 * tokens, shape_.accumulation());
  }
  return cost;
}

void Head::add_parameters(Parameters& parameters) {
  norm_.add_parameters(parameters);
  if (!tied_) parameters.push_back(&table_);
}

}  // namespace tessera
