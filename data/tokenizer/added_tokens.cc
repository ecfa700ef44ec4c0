#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "tensor/check.h"

namespace tessera {

void AddedTokenMatcher::add(std::string content, int32_t token) {
  TESSERA_CHECK(!content.empty(), "an added token without content");
  auto& entries = by_first_byte_[static_cast<unsigned char>(content[0])];
  const auto shorter = std::find_if(entries.begin(), entries.end(),
                                    [&](const Entry& entry) { return entry.content.size() < content.size(); });
  entries.insert(shorter, Entry{std::move(content), token});
  empty_ = false;
}

const AddedTokenMatcher::Entry* AddedTokenMatcher::match(std::string_view text) const {
  for (const Entry& entry : by_first_byte_[static_cast<unsigned char>(text[0])])
    if (text.starts_with(entry.content)) return &entry;
  return nullptr;
}

void AddedTokenMatcher::split(std::string_view text, FunctionRef<void(std::string_view)> plain,
                              FunctionRef<void(int32_t)> added) const {
  size_t done = 0;
  for (size_t i = 0; !empty_ && i < text.size();) {
    const Entry* entry = match(text.substr(i));
    if (entry == nullptr) {
      ++i;
      continue;
    }
    if (i > done) plain(text.substr(done, i - done));
    added(entry->token);
    done = i += entry->content.size();
  }
  if (done < text.size()) plain(text.substr(done));
}

}  // namespace tessera
