// The losses of a step by name: the head's, and what else a model makes small beside it (such as the balance of its
// experts).
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "tensor/check.h"

namespace tessera {

// The mean over target tokens of the head's loss, which training reports and validation compares.
inline constexpr std::string_view kHeadLoss = "loss";

struct NamedLoss {
  std::string_view name;  // of static text
  double value = 0;
};

// A short list in the order in which the names came, without memory of its own to allocate.
class Losses {
 public:
  static constexpr size_t kMost = 8;

  // Adds to the loss of this name, which is appended at 0 where it is new. Throws InternalError beyond kMost names.
  void add(std::string_view name, double value) {
    for (NamedLoss& loss : std::span(losses_).first(count_)) {
      if (loss.name == name) {
        loss.value += value;
        return;
      }
    }
    TESSERA_CHECK(count_ < kMost, "a model has at most 8 losses");
    losses_[count_++] = {name, value};
  }
  void add(const Losses& others) {
    for (const NamedLoss& loss : others.all()) add(loss.name, loss.value);
  }

  std::span<const NamedLoss> all() const { return std::span(losses_).first(count_); }
  // The loss of this name; 0 where there is none.
  double of(std::string_view name) const {
    for (const NamedLoss& loss : all())
      if (loss.name == name) return loss.value;
    return 0;
  }

 private:
  std::array<NamedLoss, kMost> losses_;
  size_t count_ = 0;
};

}  // namespace tessera
