#include "model/recompute.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "tensor/check.h"

namespace tessera {
namespace {

std::optional<Recompute> parse_mode(const std::string& text) {
  for (const Recompute mode : {Recompute::None, Recompute::Selective, Recompute::Full}) {
    if (text == name(mode)) return mode;
  }
  return std::nullopt;
}

std::optional<int> parse_block(const std::string& text) {
  int block = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), block);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || block < 0) return std::nullopt;
  return block;
}

std::vector<std::string> parts_of(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string::npos; at = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + 1;
  }
  parts.push_back(text.substr(begin));
  return parts;
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
  if (const auto mode = parse_mode(text)) return std::vector<Recompute>(blocks, *mode);
  std::vector<Recompute> plan(blocks, Recompute::None);
  std::vector<bool> named(blocks, false);
  for (const std::string& entry : parts_of(text, ',')) {
    const auto refuse = [&](const std::string& why) {
      throw UsageError(fmt::format("parallel.recompute = {}: '{}' {}; choose none, selective or full, or a plan like "
                                   "full:0-3,selective:4-7 over blocks 0 to {}",
                                   text, entry, why, blocks - 1));
    };
    const std::vector<std::string> halves = parts_of(entry, ':');
    const auto mode = parse_mode(halves[0]);
    if (!mode || halves.size() != 2) refuse("is no mode with blocks");
    const std::vector<std::string> ends = parts_of(halves[1], '-');
    const auto first = parse_block(ends.front()), last = parse_block(ends.back());
    if (!first || !last || ends.size() > 2 || *first > *last) refuse("names no range of blocks");
    if (*last >= blocks) refuse("ends behind the last block");
    for (int block = *first; block <= *last; ++block) {
      if (named[block]) refuse(fmt::format("names block {} again", block));
      named[block] = true;
      plan[block] = *mode;
    }
  }
  return plan;
}

}  // namespace tessera
