// How far each layer of a model looks back.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

class ModelConfig;  // model/model.proto

// Keys that a query of each layer sees back, itself included; 0: all of its document. As Hugging Face's configs say it:
// by layer_types (Gemma, gpt-oss; a list shorter than the model repeats), or layers below max_window_layers see all and
// those above sliding_window (Qwen), or all have sliding_window (Mistral). Throws UsageError with the rule where these
// contradict each other.
std::vector<int64_t> layer_windows(const ModelConfig& config);

}  // namespace tessera
