// Slices as every kind of parallelism makes them, for a transformer of any sizes.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/sharing.h"
#include "tests/checkpoint/rig.h"

namespace tessera {

// Ranks are numbered pp, dp, cp, tp, the last fastest. Layers are dealt out to the stages in order; the table belongs
// to the first stage and, as it is tied to the output, to the last. tp cuts the rows of matrices; ZeRO cuts what the
// moments and master weights have of those rows once more, over dp * cp, with the last ranks' parts short or empty.
struct Layout {
  int pp = 1, dp = 1, cp = 1, tp = 1;
  bool zero = false;

  int ranks() const { return pp * dp * cp * tp; }
  std::string str() const {
    return "pp" + std::to_string(pp) + "dp" + std::to_string(dp) + "cp" + std::to_string(cp) + "tp" +
           std::to_string(tp) + (zero ? "zero" : "");
  }
};

inline constexpr int kLayers = 4;

// Odd sizes, a matrix of several blocks, and norms of fewer rows than some layouts have ranks.
inline std::vector<TestTensor> transformer_tensors(int64_t hidden) {
  std::vector<TestTensor> tensors;
  for (const char* kind : {"master/", "exp_avg/", "exp_avg_sq/"}) {
    const std::string prefix = kind;
    tensors.push_back({prefix + "embedding", {5 * hidden + 1, hidden}});
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string block = prefix + "blocks." + std::to_string(layer);
      tensors.push_back({block + ".qkv", {3 * hidden, hidden}, prefix == "exp_avg/" ? DType::BF16 : DType::F32});
      tensors.push_back({block + ".norm", {3}});
    }
  }
  return tensors;
}

inline std::vector<HeldRows> held_by(const std::vector<TestTensor>& tensors, const Layout& layout, int rank) {
  const int tp = rank % layout.tp, token = rank / layout.tp % (layout.dp * layout.cp);
  const int stage = rank / (layout.tp * layout.dp * layout.cp);
  std::vector<HeldRows> held;
  for (const TestTensor& tensor : tensors) {
    const size_t block = tensor.name.find("blocks.");
    if (block == std::string::npos ? stage != 0 && stage != layout.pp - 1
                                   : (tensor.name[block + 7] - '0') * layout.pp / kLayers != stage) {
      continue;
    }
    Interval rows{0, tensor.shape[0]};
    if (!tensor.name.ends_with("norm")) rows = shard(rows, layout.tp, tp);
    if (layout.zero) rows = shard(rows, layout.dp * layout.cp, token);
    held.push_back({tensor.name, rows});
  }
  return held;
}

}  // namespace tessera
