#include "model/shape/windows.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/model.pb.h"
#include "tensor/check.h"

namespace tessera {

std::vector<int64_t> layer_windows(const ModelConfig& config) {
  static const std::string kSliding = "sliding_attention", kFull = "full_attention";
  const int64_t layers = config.num_hidden_layers(), window = config.sliding_window();
  const int types = config.layer_types_size();
  if (types > 0 && config.has_max_window_layers())
    throw UsageError("model.layer_types and model.max_window_layers both say which layers have a window; set one");
  if (types > layers)
    throw UsageError(fmt::format("model.layer_types has {} entries, but model.num_hidden_layers = {}; leave some out",
                                 types, layers));
  if (config.max_window_layers() > layers)
    throw UsageError(fmt::format("model.max_window_layers = {}: must be at most model.num_hidden_layers = {}",
                                 config.max_window_layers(), layers));
  for (const std::string& type : config.layer_types()) {
    if (type != kSliding && type != kFull)
      throw UsageError(fmt::format("model.layer_types = {}: unknown; choose {} or {}", type, kSliding, kFull));
    if (type == kSliding && window == 0)
      throw UsageError(fmt::format("model.layer_types = {}: needs model.sliding_window, which is 0", type));
  }
  if (config.has_max_window_layers() && window == 0)
    throw UsageError(fmt::format("model.max_window_layers = {}: needs model.sliding_window, which is 0",
                                 config.max_window_layers()));
  std::vector<int64_t> windows(layers);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const bool slides = types > 0 ? config.layer_types(static_cast<int>(layer % types)) == kSliding
                                  : layer >= config.max_window_layers();
    windows[layer] = slides ? window : 0;
  }
  return windows;
}

}  // namespace tessera
