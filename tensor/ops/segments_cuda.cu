#include "tensor/ops/segments_cuda.h"

#include "tensor/ops/segments_kernels.h"

namespace tessera {
namespace {

using namespace cuda;

// Where each list begins in the memory of them all: it follows from the tokens alone, so that a graph may be recorded
// with it.
constexpr int64_t kHeader = 4;
struct ListPlaces {
  explicit ListPlaces(int64_t tokens)
      : begin(kHeader), initial(begin + tokens + 1), final(initial + tokens), words(final + tokens) {}
  int64_t begin, initial, final, words;
};

int64_t token_count(const TokenSegments& segments) { return segments.begin.empty() ? 0 : segments.begin.back(); }

}  // namespace

cuda::SegmentView cuda::segment_view(const TokenSegments& segments) {
  const ListPlaces places(token_count(segments));
  const int32_t* lists = segments.sent.as<int32_t>();
  return {.header = lists,
          .begin = lists + places.begin,
          .initial = lists + places.initial,
          .final = lists + places.final};
}

int64_t cuda::segment_words(int64_t tokens) { return ListPlaces(tokens).words; }

void cuda::send_segments(const Context& context, TokenSegments& segments, const Tensor& memory) {
  const ListPlaces places(token_count(segments));
  TESSERA_CHECK(memory.dtype() == DType::I32 && memory.size() >= places.words && memory.device() == Device::Cuda,
                "send_segments: the memory has segment_words() words of the device");
  int32_t* to = memory.as<int32_t>();
  Uploads& uploads = context.cuda().uploads();
  const int32_t header[kHeader] = {static_cast<int32_t>(segments.count()), segments.initial.empty() ? 0 : 1,
                                   segments.final.empty() ? 0 : 1, 0};
  uploads.copy_to(to, std::span<const int32_t>(header));
  uploads.copy_to(to + places.begin, segments.begin);
  uploads.copy_to(to + places.initial, segments.initial);
  uploads.copy_to(to + places.final, segments.final);
  segments.sent = memory;
}

}  // namespace tessera
