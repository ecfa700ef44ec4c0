// Settings that a config chooses block by block: one for all blocks, or a plan "full:0-3,selective:4-7,full:10" over
// blocks of the whole model, the others keeping a default.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace tessera {

struct BlockPlanWords {
  const char* field;    // "parallel.recompute"
  const char* choices;  // "none, selective or full"
  const char* example;  // "full:0-3,selective:4-7"
};

// Calls set(setting, block) for each block that the text names; known(setting) says whether there is such a setting.
// Throws UsageError naming the entry that is no setting with blocks, has no range of the model's `blocks` blocks, or
// names a block again.
void for_block_plan(const BlockPlanWords& words, const std::string& text, int blocks,
                    const std::function<bool(const std::string&)>& known,
                    const std::function<void(const std::string&, int)>& set);

// The setting of each block. parse: a setting's name -> std::optional<T>.
template <class T, class Parse>
std::vector<T> block_plan(const BlockPlanWords& words, const std::string& text, int blocks, T otherwise, Parse parse) {
  std::vector<T> plan(blocks, otherwise);
  for_block_plan(
      words, text, blocks, [&](const std::string& setting) { return parse(setting).has_value(); },
      [&](const std::string& setting, int block) { plan[block] = *parse(setting); });
  return plan;
}

}  // namespace tessera
