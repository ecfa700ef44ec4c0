#include "data/tokenizer/added_tokens.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

namespace tessera {
namespace {

std::vector<std::string> parts(const AddedTokenMatcher& matcher, std::string_view text) {
  std::vector<std::string> found;
  matcher.split(
      text, [&](std::string_view plain) { found.emplace_back(plain); },
      [&](int32_t token) { found.push_back(fmt::format("#{}", token)); });
  return found;
}

TEST(AddedTokens, TheLongestAtTheLeftmostPlaceIsTaken) {
  AddedTokenMatcher matcher;
  matcher.add("<a", 1);
  matcher.add("<ab>", 2);
  matcher.add("b>c", 3);
  EXPECT_EQ(parts(matcher, "x<ab>c<a<abb>c"), (std::vector<std::string>{"x", "#2", "c", "#1", "#1", "b", "#3"}));
  EXPECT_EQ(parts(matcher, "<ab>"), (std::vector<std::string>{"#2"}));
  EXPECT_EQ(parts(matcher, ""), std::vector<std::string>{});
}

TEST(AddedTokens, WithoutAnyTextStaysWhole) {
  EXPECT_EQ(parts(AddedTokenMatcher(), "a<b"), (std::vector<std::string>{"a<b"}));
}

}  // namespace
}  // namespace tessera
