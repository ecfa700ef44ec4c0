// A problem of attention with its operands: random packings of documents, and calls on them with their own workspace.
// For the attention tests.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tensor/context/random.h"
#include "tensor/memory/buffer.h"
#include "tensor/ops/attention/attention.h"
#include "tests/support/device.h"
#include "tests/tensor/ops/attention/attention_reference.h"

namespace tessera::testing_attention {

// Tokens of documents one after another.
struct Tokens {
  std::vector<int32_t> position;
  std::vector<int32_t> document;

  TokenPlaces places() const { return {position, document}; }
  int64_t size() const { return static_cast<int64_t>(position.size()); }
  void add(int32_t id, int64_t length, int64_t first_position = 0) {
    for (int64_t i = 0; i < length; ++i) {
      position.push_back(static_cast<int32_t>(first_position + i));
      document.push_back(id);
    }
  }
  void add_padding(int64_t length) {
    position.insert(position.end(), length, 0);
    document.insert(document.end(), length, -1);
  }
  // Tokens [i] for i in `which`.
  Tokens pick(const std::vector<int64_t>& which) const {
    Tokens picked;
    for (const int64_t i : which) {
      picked.position.push_back(position[i]);
      picked.document.push_back(document[i]);
    }
    return picked;
  }
};

// Owner of a tile list.
struct TileList {
  std::vector<int32_t> offset;
  std::vector<int32_t> key_tile;
  std::vector<uint8_t> full;
  AttentionTiles tiles;

  TileList(const Tokens& queries, const Tokens& keys, int64_t window) {
    const AttentionTileCapacity capacity = attention_tile_capacity(queries.size(), keys.size());
    offset.resize(capacity.offsets);
    key_tile.resize(capacity.pairs);
    full.resize(capacity.pairs);
    tiles = make_attention_tiles(queries.places(), keys.places(), window, offset, key_tile, full);
  }
  TileList(const TileList&) = delete;
  TileList& operator=(const TileList&) = delete;
};

// A tensor's elements in their dtype, and the same values in double.
struct Array {
  DType dtype;
  std::vector<char, testing::SharedAllocator<char>> bytes;
  std::vector<double> value;

  explicit Array(DType type, int64_t elements = 0) : dtype(type), bytes(elements * size_of(type)), value(elements) {}

  void set(const std::vector<double>& x) {
    value = x;
    bytes.resize(x.size() * size_of(dtype));
    dispatch_float(dtype, [&](auto type) {
      using T = decltype(type);
      for (size_t i = 0; i < x.size(); ++i) {
        reinterpret_cast<T*>(bytes.data())[i] = to<T>(x[i]);
        value[i] = static_cast<double>(reinterpret_cast<T*>(bytes.data())[i]);
      }
    });
  }
  void read() {
    testing::settle();
    dispatch_float(dtype, [&](auto type) {
      using T = decltype(type);
      for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<double>(reinterpret_cast<T*>(bytes.data())[i]);
    });
  }
  Tensor tensor(const Shape& shape) { return Tensor(bytes.data(), shape, dtype, testing::kDevice); }

  template <class T>
  static T to(double x) {
    if constexpr (std::is_same_v<T, double>)
      return x;
    else
      return T(static_cast<float>(x));
  }
};

inline std::vector<double> normals(int64_t count, uint64_t seed, const std::string& purpose) {
  const RandomStream stream(seed, purpose);
  std::vector<double> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = stream.normal(i);
  return x;
}

struct Case {
  Tokens queries;
  Tokens keys;
  int64_t q_heads = 1;
  int64_t kv_heads = 1;
  int64_t head_dim = 64;
  int64_t window = 0;
  DType dtype = DType::F64;
  int threads = 1;

  Sizes sizes() const { return {queries.size(), keys.size(), q_heads, kv_heads, head_dim}; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }
  std::string name() const {
    return std::string(tessera::name(dtype)) + " queries " + std::to_string(queries.size()) + " keys " +
           std::to_string(keys.size()) + " heads " + std::to_string(q_heads) + "/" + std::to_string(kv_heads) +
           " head_dim " + std::to_string(head_dim) + " window " + std::to_string(window);
  }
};

// Operands of a case, and calls of the operations.
struct Operands {
  Case shape;
  Sizes sizes;
  TileList list;
  AttentionProblem problem;
  Context context;
  Buffer lists;  // on the device
  Array q, k, v, dout, out, lse, dq, dk, dv;

  explicit Operands(const Case& c, uint64_t seed = 1)
      : shape(c),
        sizes(c.sizes()),
        list(shape.queries, shape.keys, c.window),
        problem{.scale = c.scale(),
                .window = c.window,
                .queries = shape.queries.places(),
                .keys = shape.keys.places(),
                .tiles = list.tiles},
        context(testing::on_device({.threads = c.threads})),
        lists(testing::kDevice, list_words() * size_of(DType::I32)),
        q(c.dtype),
        k(c.dtype),
        v(c.dtype),
        dout(c.dtype),
        out(c.dtype, sizes.q_elements()),
        lse(accumulation_dtype(c.dtype), c.q_heads * sizes.queries),
        dq(c.dtype, sizes.q_elements()),
        dk(c.dtype, sizes.kv_elements()),
        dv(c.dtype, sizes.kv_elements()) {
    context.resize_workspace(
        attention_workspace(context.target(), sizes.queries, sizes.keys, c.q_heads, c.kv_heads, c.head_dim, c.dtype));
    send_attention_lists(context, problem, Tensor(lists.data(), {list_words()}, DType::I32, testing::kDevice));
    q.set(normals(sizes.q_elements(), seed, "q"));
    k.set(normals(sizes.kv_elements(), seed, "k"));
    v.set(normals(sizes.kv_elements(), seed, "v"));
    dout.set(normals(sizes.q_elements(), seed, "dout"));
    // What is overwritten may hold anything.
    for (Array* x : {&out, &lse, &dq, &dk, &dv}) std::fill(x->bytes.begin(), x->bytes.end(), '\x7f');
  }

  int64_t list_words() const { return attention_list_words(testing::kDevice, sizes.queries, sizes.keys); }
  Shape q_shape() const { return {sizes.q_heads, sizes.queries, sizes.head_dim}; }
  Shape kv_shape() const { return {sizes.kv_heads, sizes.keys, sizes.head_dim}; }
  Shape out_shape() const { return {sizes.queries, sizes.q_heads, sizes.head_dim}; }
  Shape lse_shape() const { return {sizes.q_heads, sizes.queries}; }

  void forward() {
    attention(context, problem, q.tensor(q_shape()), k.tensor(kv_shape()), v.tensor(kv_shape()),
              out.tensor(out_shape()), lse.tensor(lse_shape()));
    out.read();
    lse.read();
  }
  // With out and lse as they are.
  void backward() {
    attention_backward(context, problem, q.tensor(q_shape()), k.tensor(kv_shape()), v.tensor(kv_shape()),
                       out.tensor(out_shape()), lse.tensor(lse_shape()), dout.tensor(out_shape()), dq.tensor(q_shape()),
                       dk.tensor(kv_shape()), dv.tensor(kv_shape()));
    for (Array* x : {&dq, &dk, &dv}) x->read();
  }
};

// Four documents over 200 tokens, one of a single token, and padding in the middle and at the end.
inline Tokens mixed() {
  Tokens tokens;
  tokens.add(3, 75);
  tokens.add(4, 1);
  tokens.add_padding(9);
  tokens.add(7, 100);
  tokens.add(8, 10);
  tokens.add_padding(5);
  return tokens;
}

// Random documents, some of one token, with padding here and there; about `tokens` tokens.
inline Tokens random_packing(int64_t tokens, const RandomStream& stream, uint64_t first_index) {
  Tokens packing;
  uint64_t index = first_index;
  const int64_t longest = 1 + static_cast<int64_t>(stream.below(index++, static_cast<uint64_t>(tokens)));
  for (int32_t id = 0; packing.size() < tokens; ++id) {
    const int64_t room = tokens - packing.size();
    const int64_t length = 1 + static_cast<int64_t>(stream.below(index++, static_cast<uint64_t>(longest)));
    if (stream.below(index++, 8) == 0)
      packing.add_padding(std::min(room, length));
    else
      packing.add(id, std::min(room, stream.below(index++, 4) == 0 ? 1 : length));
  }
  return packing;
}

}  // namespace tessera::testing_attention
