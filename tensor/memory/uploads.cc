#include "tensor/memory/uploads.h"

#include <utility>

namespace tessera::cuda {

Uploads::Uploads(const Stream& stream, std::function<void(const Event&)> wait)
    : stream_(stream),
      wait_(std::move(wait)),
      host_(kSegments * kSegmentBytes, "uploads"),
      device_(Device::Cuda, kSegments * kSegmentBytes, "uploads") {}

int64_t Uploads::reserve(int64_t bytes) {
  TESSERA_CHECK(bytes <= kSegmentBytes, "an upload of " + std::to_string(bytes) + " bytes is larger than a segment");
  const int64_t need = (bytes + 255) / 256 * 256;
  if (used_ + need > kSegmentBytes) {
    sent_[segment_].record(stream_);
    segment_ = (segment_ + 1) % kSegments;
    wait_(sent_[segment_]);
    used_ = 0;
  }
  const int64_t at = segment_ * kSegmentBytes + used_;
  used_ += need;
  return at;
}

}  // namespace tessera::cuda
