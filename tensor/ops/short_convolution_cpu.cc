#include <algorithm>
#include <cmath>

#include "tensor/context/threads.h"
#include "tensor/ops/short_convolution_kernels.h"
#include "tensor/ops/simd_math.h"

namespace tessera {
namespace {

// Channels that are done at once: their filters and sums stay in the first cache.
constexpr int64_t kChannels = 64;

// Where a filter finds the tokens of a segment: its own, those of its halo before them, or zeros.
template <class T>
struct Tokens {
  const T* x;     // of all tokens
  const T* halo;  // of this segment, or null
  int64_t begin, end, channels, width;

  // The row of a token from begin - (width - 1) on; null: zeros.
  const T* row(int64_t token) const {
    if (token >= begin) return x + token * channels;
    return halo == nullptr ? nullptr : halo + (token - begin + width - 1) * channels;
  }
};

template <class T>
Tokens<T> tokens_of(const TokenSegments& segments, int64_t segment, const T* x, const T* halo, int64_t channels,
                    int64_t width) {
  const int64_t row = segments.initial_row(segment);
  return {.x = x,
          .halo = row < 0 || halo == nullptr ? nullptr : halo + row * (width - 1) * channels,
          .begin = segments.begin[static_cast<size_t>(segment)],
          .end = segments.begin[static_cast<size_t>(segment) + 1],
          .channels = channels,
          .width = width};
}

// Weights of `count` channels as [width][kChannels].
template <class T>
void load_filters(const T* weight, int64_t first, int64_t count, int64_t width, Acc<T>* filter) {
  for (int64_t j = 0; j < width; ++j) {
    for (int64_t c = 0; c < count; ++c)
      filter[j * kChannels + c] = static_cast<Acc<T>>(weight[(first + c) * width + j]);
  }
}

// sum = p of a token, for `count` channels from `first` on.
template <class T>
void filter_token(const Tokens<T>& tokens, int64_t token, int64_t first, int64_t count, const Acc<T>* filter,
                  Acc<T>* sum) {
  using A = Acc<T>;
  std::fill_n(sum, count, A(0));
  for (int64_t j = 0; j < tokens.width; ++j) {
    const T* row = tokens.row(token - (tokens.width - 1) + j);
    if (row == nullptr) continue;
    const A* weights = filter + j * kChannels;
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) sum[c] += weights[c] * static_cast<A>(row[first + c]);
  }
}

// Backward for `count` channels, walking through the tokens once. dp = dy silu'(p) of the last `width` tokens is kept,
// since dx_t needs that of tokens t to t + width - 1.
template <class T>
struct BackwardChannels {
  using A = Acc<T>;

  int64_t first, count;
  A filter[kMostConvolutionWidth * kChannels], sums[kMostConvolutionWidth * kChannels];
  A recent[kMostConvolutionWidth * kChannels];

  A* gradient_of(int64_t token, int64_t width) { return recent + (token + width) % width * kChannels; }

  // dp of a token, and its part of dweight.
  void take(const Tokens<T>& tokens, int64_t token, const T* dy) {
    A* gradient = gradient_of(token, tokens.width);
    filter_token(tokens, token, first, count, filter, gradient);
    const T* from = dy + token * tokens.channels + first;
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) {
      const A p = gradient[c], s = simd::sigmoid(p);
      gradient[c] = static_cast<A>(from[c]) * (s + p * s * (A(1) - s));
    }
    for (int64_t j = 0; j < tokens.width; ++j) {
      const T* row = tokens.row(token - (tokens.width - 1) + j);
      if (row == nullptr) continue;
      A* sum = sums + j * kChannels;
#pragma omp simd
      for (int64_t c = 0; c < count; ++c) sum[c] += gradient[c] * static_cast<A>(row[first + c]);
    }
  }

  // The gradient of a token's row, of which all later ones that see it were taken.
  void give(int64_t token, int64_t width, T* to) {
    A sum[kChannels] = {};
    for (int64_t j = 0; j < width; ++j) {
      const A *gradient = gradient_of(token + width - 1 - j, width), *weights = filter + j * kChannels;
#pragma omp simd
      for (int64_t c = 0; c < count; ++c) sum[c] += weights[c] * gradient[c];
    }
    for (int64_t c = 0; c < count; ++c) to[first + c] = round_to<T>(sum[c]);
  }

  void run(const Tokens<T>& tokens, const T* dy, T* dx, T* dhalo) {
    const int64_t width = tokens.width;
    std::fill_n(recent, kMostConvolutionWidth * kChannels, A(0));
    for (int64_t token = tokens.begin; token < tokens.end + width - 1; ++token) {
      if (token < tokens.end)
        take(tokens, token, dy);
      else
        std::fill_n(gradient_of(token, width), kChannels, A(0));
      const int64_t given = token - (width - 1);
      if (given >= tokens.begin)
        give(given, width, dx + given * tokens.channels);
      else if (dhalo != nullptr)
        give(given, width, dhalo + (given - tokens.begin + width - 1) * tokens.channels);
    }
  }
};

}  // namespace

void cpu::short_convolution(const Context& context, const TokenSegments& segments, const ConstTensor& x,
                            const ConstTensor& weight, const ConstTensor& halo, const Tensor& y) {
  const int64_t channels = x.dim(1), width = weight.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T *from = x.as<T>(), *weights = weight.as<T>(), *before = halo.empty() ? nullptr : halo.as<T>();
    T* to = y.as<T>();
    parallel_for(
        context, x.dim(0), 1 + 8192 / (channels + 1), [&, from, weights, before, to](int64_t begin, int64_t end) {
          A filter[kMostConvolutionWidth * kChannels], sum[kChannels];
          for (int64_t first = 0; first < channels; first += kChannels) {
            const int64_t count = std::min(kChannels, channels - first);
            load_filters(weights, first, count, width, filter);
            int64_t segment =
                std::upper_bound(segments.begin.begin(), segments.begin.end(), begin) - segments.begin.begin() - 1;
            for (int64_t t = begin; t < end; ++t) {
              while (segments.begin[static_cast<size_t>(segment) + 1] <= t) ++segment;
              filter_token(tokens_of(segments, segment, from, before, channels, width), t, first, count, filter, sum);
              T* out = to + t * channels + first;
#pragma omp simd
              for (int64_t c = 0; c < count; ++c) out[c] = round_to<T>(sum[c] * simd::sigmoid(sum[c]));
            }
          }
        });
  });
}

void cpu::short_convolution_backward(Context& context, const TokenSegments& segments, const ConstTensor& dy,
                                     const ConstTensor& x, const ConstTensor& weight, const ConstTensor& halo,
                                     const Tensor& dx, const Tensor& dhalo, const Tensor& dweight) {
  const int64_t channels = x.dim(1), width = weight.dim(1);
  dispatch_float(x.dtype(), [&]<class T>(T) {
    using A = Acc<T>;
    const T* before = halo.empty() ? nullptr : halo.as<T>();
    A* total = dweight.as<A>();
    parallel_tasks(context, (channels + kChannels - 1) / kChannels, [&](int64_t block, int) {
      BackwardChannels<T> own;
      own.first = block * kChannels;
      own.count = std::min(kChannels, channels - own.first);
      load_filters(weight.as<T>(), own.first, own.count, width, own.filter);
      std::fill_n(own.sums, kMostConvolutionWidth * kChannels, A(0));
      for (int64_t s = 0; s < segments.count(); ++s) {
        const Tokens<T> tokens = tokens_of(segments, s, x.as<T>(), before, channels, width);
        T* to = tokens.halo == nullptr ? nullptr : dhalo.as<T>() + (tokens.halo - before);
        own.run(tokens, dy.as<T>(), dx.as<T>(), to);
      }
      for (int64_t c = 0; c < own.count; ++c) {
        for (int64_t j = 0; j < width; ++j) total[(own.first + c) * width + j] += own.sums[j * kChannels + c];
      }
    });
  });
}

}  // namespace tessera
