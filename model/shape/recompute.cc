#include "model/shape/recompute.h"

#include <optional>

#include "model/shape/block_plan.h"

namespace tessera {
namespace {

std::optional<Recompute> parse_mode(const std::string& text) {
  for (const Recompute mode : {Recompute::None, Recompute::Selective, Recompute::Full}) {
    if (text == name(mode)) return mode;
  }
  return std::nullopt;
}

}  // namespace

const char* name(Recompute mode) {
  switch (mode) {
    case Recompute::None:
      return "none";
    case Recompute::Selective:
      return "selective";
    case Recompute::Full:
      return "full";
  }
  return "?";
}

std::vector<Recompute> recompute_plan(const std::string& text, int blocks) {
  return block_plan(
      {.field = "parallel.recompute", .choices = "none, selective or full", .example = "full:0-3,selective:4-7"}, text,
      blocks, Recompute::None, parse_mode);
}

}  // namespace tessera
