#include "parallel/context/mixer_work.h"

#include <algorithm>

namespace tessera {

MixerWork attention_work(const AttentionKind& kind) {
  const int64_t window = kind.window;
  return {.layers = kind.layers,
          .first =
              [window](int64_t n) {
                const int64_t ramp = window > 0 ? std::min(n, window) : n;
                return ramp * (ramp + 1) / 2 + (n - ramp) * window;
              },
          .even_after = window > 0 ? window : MixerWork::kNever};
}

std::vector<MixerWork> attention_work(std::span<const AttentionKind> kinds) {
  std::vector<MixerWork> work;
  for (const AttentionKind& kind : kinds) work.push_back(attention_work(kind));
  return work;
}

}  // namespace tessera
