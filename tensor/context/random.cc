#include "tensor/context/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/context/context.h"
#include "tensor/context/runtime.h"
#include "tensor/context/threads.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

// FNV-1a, 64 bits: purposes are few and fixed, so a short well-known hash is enough.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// A uniform in (0, 1], for the logarithm of Box-Muller.
double open_uniform(uint32_t high, uint32_t low) {
  return (static_cast<double>((static_cast<uint64_t>(high) << 32 | low) >> 11) + 1.0) * 0x1p-53;
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * c[0], p1 = kMultiplier1 * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

RandomStream::RandomStream(uint64_t seed, std::string_view purpose)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, purpose_(hash_name(purpose)) {}

std::array<uint32_t, 4> RandomStream::block(uint64_t index) const {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(purpose_),
                     static_cast<uint32_t>(purpose_ >> 32)},
                    key_);
}

uint64_t RandomStream::bits(uint64_t index) const {
  const auto b = block(index / 2);
  const int half = index % 2 ? 2 : 0;
  return static_cast<uint64_t>(b[half]) << 32 | b[half + 1];
}

double RandomStream::uniform(uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1p-53; }

double RandomStream::normal(uint64_t index) const { return normal_pair(index / 2)[index % 2]; }

std::array<double, 2> RandomStream::normal_pair(uint64_t pair) const {
  const std::array<uint32_t, 4> bits = block(pair);
  const double radius = std::sqrt(-2.0 * std::log(open_uniform(bits[0], bits[1])));
  const double angle = 2.0 * std::numbers::pi * open_uniform(bits[2], bits[3]);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

uint64_t RandomStream::below(uint64_t index, uint64_t bound) const {
  __extension__ using uint128 = unsigned __int128;
  return static_cast<uint64_t>(static_cast<uint128>(bits(index)) * bound >> 64);
}

namespace {

void fill_normal_on_host(const Context& context, const Tensor& x, const RandomStream& stream, int64_t first_index,
                         double standard_deviation) {
  dispatch_float(x.dtype(), [&]<class T>(T) {
    T* out = x.as<T>();
    parallel_for(context, x.size(), 4096, [&](int64_t begin, int64_t end) {
      // Each pair is drawn once: an odd global index at the beginning takes the second of a pair alone.
      int64_t i = begin;
      if (i < end && (first_index + i) % 2 != 0) {
        out[i] = round_to<T>(standard_deviation * stream.normal(first_index + i));
        ++i;
      }
      for (; i < end; i += 2) {
        const std::array<double, 2> pair = stream.normal_pair((first_index + i) / 2);
        out[i] = round_to<T>(standard_deviation * pair[0]);
        if (i + 1 < end) out[i + 1] = round_to<T>(standard_deviation * pair[1]);
      }
    });
  });
}

}  // namespace

void fill_normal(const Context& context, Tensor x, const RandomStream& stream, int64_t first_index,
                 double standard_deviation) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) {
      // Drawn on the host, so that a run starts from the same bits on every device.
      cuda::Uploads& uploads = context.cuda().uploads();
      const int64_t most = cuda::Uploads::kSegmentBytes / size_of(x.dtype());
      for (int64_t begin = 0; begin < x.size(); begin += most) {
        const Tensor part = x.reshape({x.size()}).rows(begin, std::min(x.size(), begin + most));
        const auto piece = uploads.take<std::byte>(part.bytes());
        fill_normal_on_host(context, Tensor(piece.host.data(), part.shape(), part.dtype()), stream, first_index + begin,
                            standard_deviation);
        context.cuda().stream().copy_to_device(part.data(), piece.host.data(), part.bytes());
      }
      return;
    }
  }
  fill_normal_on_host(context, x, stream, first_index, standard_deviation);
}

}  // namespace tessera
