#include "tensor/ops/segments.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/segments_kernels.h"

namespace tessera {

void send_segments(const Context& context, TokenSegments& segments, const Tensor& memory) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::send_segments(context, segments, memory);
  }
}

int64_t segment_words(Device device, int64_t tokens) {
  if constexpr (kHasCuda) {
    if (device == Device::Cuda) return cuda::segment_words(tokens);
  }
  return 0;
}

void check_segments(const Context& context, const TokenSegments& segments, int64_t tokens, const char* what) {
  TESSERA_CHECK(context.device() == Device::Cpu || segments.sent.data() != nullptr,
                std::string(what) + ": the segments were sent to the device");
  const std::span<const int32_t> begin = segments.begin;
  TESSERA_CHECK(
      !begin.empty() && begin.front() == 0 && begin.back() == tokens,
      std::string(what) + ": segments begin at 0 and end at the last of " + std::to_string(tokens) + " tokens");
  for (size_t s = 0; s + 1 < begin.size(); ++s) {
    TESSERA_CHECK(begin[s] < begin[s + 1], std::string(what) + ": segments ascend and hold tokens");
  }
}

void check_segment_rows(std::span<const int32_t> rows, int64_t segments, int64_t most, const char* what) {
  if (rows.empty()) return;
  TESSERA_CHECK_EQ(static_cast<int64_t>(rows.size()), segments, std::string(what) + ": one row a segment");
  for (const int32_t row : rows) {
    TESSERA_CHECK(row >= -1 && row < most,
                  std::string(what) + " is asked for row " + std::to_string(row) + " of " + std::to_string(most));
  }
}

}  // namespace tessera
