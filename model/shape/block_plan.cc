#include "model/shape/block_plan.h"

#include <fmt/format.h>

#include <charconv>

#include "tensor/check.h"

namespace tessera {
namespace {

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

void for_block_plan(const BlockPlanWords& words, const std::string& text, int blocks,
                    const std::function<bool(const std::string&)>& known,
                    const std::function<void(const std::string&, int)>& set) {
  if (known(text)) {
    for (int block = 0; block < blocks; ++block) set(text, block);
    return;
  }
  std::vector<bool> named(blocks, false);
  for (const std::string& entry : parts_of(text, ',')) {
    const auto refuse = [&](const std::string& why) {
      throw UsageError(fmt::format("{} = {}: '{}' {}; choose {}, or a plan like {} over blocks 0 to {}", words.field,
                                   text, entry, why, words.choices, words.example, blocks - 1));
    };
    const size_t colon = entry.rfind(':');  // a setting may have one of its own
    const std::string setting = entry.substr(0, colon);
    if (colon == std::string::npos || !known(setting)) refuse("is no mode with blocks");
    const std::vector<std::string> ends = parts_of(entry.substr(colon + 1), '-');
    const auto first = parse_block(ends.front()), last = parse_block(ends.back());
    if (!first || !last || ends.size() > 2 || *first > *last) refuse("names no range of blocks");
    if (*last >= blocks) refuse("ends behind the last block");
    for (int block = *first; block <= *last; ++block) {
      if (named[block]) refuse(fmt::format("names block {} again", block));
      named[block] = true;
      set(setting, block);
    }
  }
}

}  // namespace tessera
