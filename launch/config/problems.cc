#include "launch/config/problems.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tensor/check.h"

namespace tessera {

void Origins::erase(const std::string& path) {
  std::erase_if(where_, [&](const auto& entry) {
    const std::string& key = entry.first;
    return key.starts_with(path) && (key.size() == path.size() || key[path.size()] == '.' || key[path.size()] == '[');
  });
}

std::string Origins::of(const std::string& path) const {
  if (const auto found = where_.find(path); found != where_.end()) return found->second;
  const size_t dot = path.rfind("].");
  if (dot == std::string::npos) return "";
  const auto element = where_.find(path.substr(0, dot + 1));
  return element == where_.end() ? "" : element->second;
}

void Problems::add(const Origins& origins, std::initializer_list<std::string> paths, const std::string& message) {
  for (const std::string& path : paths) {
    if (const std::string where = origins.of(path); !where.empty()) return add(where + ": " + message);
  }
  add(message);
}

void Problems::add_located(const Origins& origins, const std::string& message) {
  add(origins, {message.substr(0, message.find(' '))}, message);
}

void Problems::throw_if_any() const {
  if (!messages_.empty()) throw UsageError(fmt::format("{}", fmt::join(messages_, "\n")));
}

}  // namespace tessera
