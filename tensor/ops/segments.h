// Runs of tokens that an operation with a memory of the past keeps apart: documents, or the parts of documents that lie
// on this rank. Nothing passes from one segment to another. A segment that continues what lies on another rank starts
// from a row of what that rank sent, and leaves a row of what the next one needs.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

struct TokenSegments {
  std::span<const int32_t> begin;      // [segments + 1]: first token of each, 0 at first, strictly ascending to tokens
  std::span<const int32_t> initial{};  // [segments]: the row it starts from, or -1: nothing. Empty: all nothing
  std::span<const int32_t> final{};    // [segments]: the row that it leaves, or -1: none. Empty: none
  ConstTensor sent{};                  // on a device: these lists in its memory, by send_segments()

  int64_t count() const { return static_cast<int64_t>(begin.size()) - 1; }
  // The row of a segment in either list.
  int64_t initial_row(int64_t segment) const { return initial.empty() ? -1 : initial[static_cast<size_t>(segment)]; }
  int64_t final_row(int64_t segment) const { return final.empty() ? -1 : final[static_cast<size_t>(segment)]; }
};

// Kernels on a device read the lists in its memory, where they are put once for all calls that use them: queues their
// copy into `memory`, I32 [segment_words()] or longer, which becomes segments.sent. The spans must stay too, since calls
// check them. On a CPU there is nothing to send.
void send_segments(const Context& context, TokenSegments& segments, const Tensor& memory);

// Elements of that memory for any segments of so many tokens; 0 on a CPU.
int64_t segment_words(Device device, int64_t tokens);

}  // namespace tessera
