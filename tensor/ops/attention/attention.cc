#include "tensor/ops/attention/attention.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/attention/attention_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check(const Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
           const ConstTensor& v) {
  TESSERA_CHECK(context.device() == Device::Cpu || problem.sent.data() != nullptr,
                "attention: the lists were sent to the device");
  TESSERA_CHECK(q.rank() == 3 && k.rank() == 3,
                "q [q_heads, queries, head_dim] and k [kv_heads, keys, head_dim] have three dims");
  const int64_t queries = q.dim(1);
  const int64_t keys = k.dim(1);
  TESSERA_CHECK(q.dim(2) > 0 && k.dim(0) > 0, "attention has heads, and they have elements");
  TESSERA_CHECK_EQ(q.dim(0) % k.dim(0), int64_t{0}, "attention: kv_heads divide q_heads");
  const Shape kv_shape = {k.dim(0), keys, q.dim(2)};
  check_operand(context, q, q.shape(), q.dtype(), "attention: q");
  check_operand(context, k, kv_shape, q.dtype(), "attention: k");
  check_operand(context, v, kv_shape, q.dtype(), "attention: v");
  TESSERA_CHECK(problem.scale > 0, "the scale of the scores is positive");
  TESSERA_CHECK(problem.window >= 0, "a window is positive, or 0 for none");
  TESSERA_CHECK_EQ(static_cast<int64_t>(problem.queries.document.size()), queries, "a document per query");
  TESSERA_CHECK_EQ(static_cast<int64_t>(problem.queries.position.size()), queries, "a position per query");
  TESSERA_CHECK_EQ(static_cast<int64_t>(problem.keys.document.size()), keys, "a document per key");
  TESSERA_CHECK_EQ(static_cast<int64_t>(problem.keys.position.size()), keys, "a position per key");

  // A list that repeats a tile or names one that does not exist would count keys twice or read past the end.
  const AttentionTiles& tiles = problem.tiles;
  const int64_t query_tiles = (queries + kAttentionTile - 1) / kAttentionTile;
  const int64_t key_tiles = (keys + kAttentionTile - 1) / kAttentionTile;
  TESSERA_CHECK_EQ(static_cast<int64_t>(tiles.offset.size()), query_tiles + 1, "an offset per query tile and the end");
  TESSERA_CHECK_EQ(tiles.offset[0], 0, "the first list of tiles starts at 0");
  TESSERA_CHECK_EQ(static_cast<int64_t>(tiles.key_tile.size()), int64_t{tiles.offset[query_tiles]}, "pairs of tiles");
  TESSERA_CHECK_EQ(tiles.full.size(), tiles.key_tile.size(), "a flag per pair of tiles");
  for (int64_t i = 0; i < query_tiles; ++i) {
    int64_t least = 0;
    TESSERA_CHECK(tiles.offset[i] <= tiles.offset[i + 1], "offsets ascend");
    for (int32_t pair = tiles.offset[i]; pair < tiles.offset[i + 1]; ++pair) {
      TESSERA_CHECK(tiles.key_tile[pair] >= least && tiles.key_tile[pair] < key_tiles,
                    "key tiles ascend and exist, but query tile " + std::to_string(i) + " names " +
                        std::to_string(tiles.key_tile[pair]) + " of " + std::to_string(key_tiles));
      least = tiles.key_tile[pair] + 1;
    }
  }
}

void check_outputs(const Context& context, const AttentionProblem& problem, const ConstTensor& q,
                   const ConstTensor& out, const ConstTensor& lse) {
  TESSERA_CHECK_EQ(out.rank(), 3, "attention: out [queries, all heads, head_dim] has three dims");
  TESSERA_CHECK(0 <= problem.first_head && problem.first_head + q.dim(0) <= out.dim(1),
                "attention: the heads are among those of out");
  check_operand(context, out, {q.dim(1), out.dim(1), q.dim(2)}, q.dtype(), "attention: out");
  check_operand(context, lse, {q.dim(0), q.dim(1)}, accumulation_dtype(q.dtype()), "attention: lse");
}

}  // namespace

int64_t attention_forward_flops(int64_t pairs, int64_t head_dim) { return 4 * pairs * head_dim; }
int64_t attention_backward_flops(int64_t pairs, int64_t head_dim) { return 10 * pairs * head_dim; }

void send_attention_lists(const Context& context, AttentionProblem& problem, const Tensor& memory) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::send_attention_lists(context, problem, memory);
  }
}

int64_t attention_list_words(Device device, int64_t queries, int64_t keys) {
  if constexpr (kHasCuda) {
    if (device == Device::Cuda) return cuda::attention_list_words(queries, keys);
  }
  return 0;
}

void attention(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
               const ConstTensor& v, const Tensor& out, const Tensor& lse) {
  check(context, problem, q, k, v);
  check_outputs(context, problem, q, out, lse);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::attention(context, problem, q, k, v, out, lse);
  }
  cpu::attention(context, problem, q, k, v, out, lse);
}

void attention_backward(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                        const ConstTensor& v, const ConstTensor& out, const ConstTensor& lse, const ConstTensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  check(context, problem, q, k, v);
  check_outputs(context, problem, q, out, lse);
  check_operand(context, dout, out.shape(), q.dtype(), "attention: dout");
  check_operand(context, dq, q.shape(), q.dtype(), "attention: dq");
  check_operand(context, dk, k.shape(), q.dtype(), "attention: dk");
  check_operand(context, dv, k.shape(), q.dtype(), "attention: dv");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::attention_backward(context, problem, q, k, v, out, lse, dout, dq, dk, dv);
  }
  cpu::attention_backward(context, problem, q, k, v, out, lse, dout, dq, dk, dv);
}

int64_t attention_workspace(Target target, int64_t queries, int64_t keys, int64_t q_heads, int64_t kv_heads,
                            int64_t head_dim, DType compute) {
  if constexpr (kHasCuda) {
    if (target.device == Device::Cuda)
      return cuda::attention_workspace(target, queries, keys, q_heads, kv_heads, head_dim, compute);
  }
  return cpu::attention_workspace(target, queries, keys, q_heads, kv_heads, head_dim, compute);
}

}  // namespace tessera
