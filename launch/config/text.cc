#include "launch/config/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>
#include <xxhash.h>

#include <algorithm>
#include <map>

#include "launch/config/field.h"
#include "launch/config/read.h"
#include "launch/config/suggest.h"
#include "launch/run.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

const std::vector<std::string>& fixed_sections() {
  static const std::vector<std::string> sections = {"model", "data", "optimizer", "lr_schedule"};
  return sections;
}

struct Leaf {
  std::string path;
  std::string value;
};

// Every scalar of the sections that may not change, by path. Values are those in force: an unset field is its default.
std::vector<Leaf> leaves(RunConfig config) {
  std::vector<Leaf> found;
  for_each_scalar(config, [&](const std::string& path, const FieldRef& ref) {
    const std::string section = path.substr(0, path.find('.'));
    if (std::count(fixed_sections().begin(), fixed_sections().end(), section) > 0)
      found.push_back({path, value_text(ref)});
  });
  return found;
}

}  // namespace

std::string to_text(const RunConfig& config) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  TESSERA_CHECK(printer.PrintToString(config, &text), "a config can be printed");
  return text;
}

std::string config_hash(const RunConfig& config) {
  const std::string text = to_text(config);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

void read_saved_config(const std::string& file, RunConfig& config) {
  Origins origins;
  read_config(file, {}, config, origins);
}

std::vector<Change> changed_sections(const RunConfig& saved, const RunConfig& now) {
  constexpr const char* kNone = "(none)";
  const std::vector<Leaf> before = leaves(saved), after = leaves(now);
  std::map<std::string, std::string> values_after;
  for (const Leaf& leaf : after) values_after.emplace(leaf.path, leaf.value);
  std::vector<Change> changes;
  const auto add = [&](const std::string& path, const std::string& from, const std::string& to) {
    if (from != to) changes.push_back({path.substr(0, path.find('.')), path, from, to});
  };
  for (const Leaf& leaf : before) {
    const auto found = values_after.find(leaf.path);
    add(leaf.path, leaf.value, found == values_after.end() ? kNone : found->second);
    if (found != values_after.end()) values_after.erase(found);
  }
  for (const Leaf& leaf : after) {  // what is left is new, in the order of the schema
    if (values_after.count(leaf.path) > 0) add(leaf.path, kNone, leaf.value);
  }
  return changes;
}

void check_changes(const RunConfig& saved, const RunConfig& now, std::span<const std::string> allowed) {
  for (const std::string& name : allowed) {
    if (std::count(fixed_sections().begin(), fixed_sections().end(), name) == 0)
      throw UsageError(
          fmt::format("--allow-change {}: not a section that is kept; {}", name, did_you_mean(name, fixed_sections())));
  }
  std::vector<std::string> lines, sections;
  for (const Change& change : changed_sections(saved, now)) {
    if (std::count(allowed.begin(), allowed.end(), change.section) > 0) continue;
    lines.push_back(fmt::format("  {}: was {}, is {}", change.path, change.saved, change.now));
    if (sections.empty() || sections.back() != change.section) sections.push_back(change.section);
  }
  if (lines.empty()) return;
  throw UsageError(fmt::format(
      "the config differs from the one that this run was started with:\n{}\nset the fields to what they were, start "
      "another run (run.name), or go on with --allow-change {}",
      fmt::join(lines, "\n"), fmt::join(sections, " --allow-change ")));
}

}  // namespace tessera
