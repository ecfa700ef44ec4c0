// Attention on a GPU: sends the lists once, and chooses the kernels.
#include <algorithm>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/elements.h"
#include "tensor/ops/attention/attention_cuda.h"
#include "tensor/ops/attention/attention_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

int64_t tiles(int64_t tokens) { return ceil_divide(tokens, kAttentionTile); }

// Where each list begins in the memory of them all, in words. It follows from the tokens alone, not from the pairs of
// tiles that there are, so that a graph may be recorded with it.
struct ListPlaces {
  ListPlaces(int64_t queries, int64_t keys) {
    const int64_t pairs = attention_tile_capacity(queries, keys).pairs;
    key_position = take(keys);
    key_document = take(keys);
    query_position = take(queries);
    query_document = take(queries);
    offset = take(tiles(queries) + 1);
    key_tile = take(pairs);
    full = take(ceil_divide(pairs, 4));
  }

  int64_t key_position, key_document, query_position, query_document, offset, key_tile, full;
  int64_t words = 0;  // of them all

 private:
  int64_t take(int64_t count) {
    constexpr int64_t kAlignment = Arena::kAlignment / static_cast<int64_t>(sizeof(int32_t));
    const int64_t at = words;
    words += ceil_divide(count, kAlignment) * kAlignment;
    return at;
  }
};

// Queries that are the first keys have their places among those of the keys.
bool queries_are_keys(const AttentionProblem& problem) {
  const TokenPlaces &queries = problem.queries, &keys = problem.keys;
  return queries.position.data() == keys.position.data() && queries.document.data() == keys.document.data() &&
         queries.position.size() <= keys.position.size();
}

ListPlaces places_of(const AttentionProblem& problem) {
  return {static_cast<int64_t>(problem.queries.position.size()), static_cast<int64_t>(problem.keys.position.size())};
}

AttentionInput input_of(const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                        const ConstTensor& out) {
  const ListPlaces places = places_of(problem);
  const int32_t* lists = problem.sent.as<int32_t>();
  const bool shared = queries_are_keys(problem);
  AttentionInput in{};
  in.queries = q.dim(1);
  in.keys = k.dim(1);
  in.q_heads = static_cast<int32_t>(q.dim(0));
  in.kv_heads = static_cast<int32_t>(k.dim(0));
  in.head_dim = static_cast<int32_t>(q.dim(2));
  in.out_stride = out.dim(1) * out.dim(2);
  in.query_tiles = static_cast<int32_t>(tiles(in.queries));
  in.key_tiles = static_cast<int32_t>(tiles(in.keys));
  in.scale = problem.scale;
  constexpr int64_t kAll = int64_t{1} << 31;  // more than any distance
  in.window = static_cast<uint32_t>(problem.window == 0 ? kAll : std::min(problem.window, kAll));
  in.offset = lists + places.offset;
  in.key_tile = lists + places.key_tile;
  in.full = reinterpret_cast<const uint8_t*>(lists + places.full);
  in.key_position = lists + places.key_position;
  in.key_document = lists + places.key_document;
  in.query_position = shared ? in.key_position : lists + places.query_position;
  in.query_document = shared ? in.key_document : lists + places.query_document;
  return in;
}

bool on_tensor_cores(const Context& context, DType dtype, const AttentionInput& in) {
  return dtype == DType::BF16 && in.head_dim % 8 == 0 && in.head_dim <= 256 &&
         attention_mma_shared_bytes(in.head_dim) + in.query_tiles <= context.cuda().device().shared_memory;
}

bool all_aligned(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(), [](const void* p) { return aligned(p); });
}

// out and dout from the first of the problem's heads on.
template <class AnyTensor>
AnyTensor from_first_head(const AttentionProblem& problem, const AnyTensor& out) {
  const int64_t skipped = problem.first_head * out.dim(2) * size_of(out.dtype());
  using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(out.data())>>, const char, char>;
  return {static_cast<Bytes*>(out.data()) + skipped, out.shape(), out.dtype(), out.device()};
}

// delta[head, query] = dout . out: a warp for each head of each query.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    delta_kernel(const T* out, const T* dout, int64_t queries, int32_t q_heads, int32_t head_dim, int64_t stride,
                 Acc<T>* delta) {
  using A = Acc<T>;
  const int64_t warps = int64_t{gridDim.x} * (blockDim.x / 32);
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t row = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32; row < queries * q_heads;
       row += warps) {
    const int64_t query = row / q_heads, head = row % q_heads, at = query * stride + head * head_dim;
    A sum = A(0);
    for (int32_t d = lane; d < head_dim; d += 32) {
      sum += static_cast<A>(out[at + d]) * static_cast<A>(dout[at + d]);
    }
    sum = warp_sum(sum);
    if (lane == 0) delta[head * queries + query] = sum;
  }
}

}  // namespace

void cuda::send_attention_lists(const Context& context, AttentionProblem& problem, const Tensor& memory) {
  const ListPlaces places = places_of(problem);
  TESSERA_CHECK(memory.dtype() == DType::I32 && memory.device() == Device::Cuda && memory.size() >= places.words,
                "memory for the lists of attention: attention_list_words() on the device");
  Uploads& uploads = context.cuda().uploads();
  const auto send = [&]<class T>(std::span<const T> values, int64_t at) {
    uploads.copy_to(reinterpret_cast<T*>(memory.as<int32_t>() + at), values);
  };
  send(problem.keys.position, places.key_position);
  send(problem.keys.document, places.key_document);
  if (!queries_are_keys(problem)) {
    send(problem.queries.position, places.query_position);
    send(problem.queries.document, places.query_document);
  }
  send(problem.tiles.offset, places.offset);
  send(problem.tiles.key_tile, places.key_tile);
  send(problem.tiles.full, places.full);
  problem.sent = memory;
}

int64_t cuda::attention_list_words(int64_t queries, int64_t keys) { return ListPlaces(queries, keys).words; }

void cuda::attention(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                     const ConstTensor& v, const Tensor& all_out, const Tensor& lse) {
  if (q.dim(1) == 0) return;
  const AttentionInput in = input_of(problem, q, k, all_out);
  const Tensor out = from_first_head(problem, all_out);
  const bool fast = on_tensor_cores(context, q.dtype(), in) && all_aligned({q.data(), k.data(), v.data(), out.data()});
  (fast ? attention_mma : attention_plain)(context, in, q, k, v, out, lse);
}

void cuda::attention_backward(Context& context, const AttentionProblem& problem, const ConstTensor& q,
                              const ConstTensor& k, const ConstTensor& v, const ConstTensor& all_out,
                              const ConstTensor& lse, const ConstTensor& all_dout, const Tensor& dq, const Tensor& dk,
                              const Tensor& dv) {
  const ArenaScope scope(context.workspace());
  const AttentionInput in = input_of(problem, q, k, all_out);
  const ConstTensor out = from_first_head(problem, all_out), dout = from_first_head(problem, all_dout);
  const Tensor delta = context.workspace().take(lse.shape(), lse.dtype());
  const int64_t rows = in.queries * in.q_heads;
  if (rows > 0) {
    dispatch_float(q.dtype(), [&]<class T>(T) {
      launch(context, "attention_backward: delta", &delta_kernel<T>, stride_blocks(context, rows, kElementThreads / 32),
             kElementThreads, 0, out.as<T>(), dout.as<T>(), in.queries, in.q_heads, in.head_dim, in.out_stride,
             delta.as<Acc<T>>());
    });
  }
  const bool fast = on_tensor_cores(context, q.dtype(), in) &&
                    all_aligned({q.data(), k.data(), v.data(), dout.data(), dq.data(), dk.data(), dv.data()});
  (fast ? attention_backward_mma : attention_backward_plain)(context, in, {q, k, v, out, lse, dout, delta, dq, dk, dv});
}

int64_t cuda::attention_workspace(Target, int64_t queries, int64_t, int64_t q_heads, int64_t, int64_t, DType compute) {
  return Arena::bytes({q_heads, queries}, accumulation_dtype(compute));
}

}  // namespace tessera
