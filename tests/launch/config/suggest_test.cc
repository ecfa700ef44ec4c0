#include "launch/config/suggest.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(EditDistance, CountsEditsAndIgnoresCase) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("hiden_size", "hidden_size"), 1);
  EXPECT_EQ(edit_distance("hidden_szie", "hidden_size"), 1);  // a swap is one edit
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("cosine", "COSINE"), 0);
  EXPECT_EQ(edit_distance("abc", "xyz"), 3);
}

TEST(Nearest, PrefersFewEditsThenNamesThatContainIt) {
  const std::vector<std::string> names = {"hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads"};
  EXPECT_EQ(nearest("hiden_size", names), std::vector<std::string>{"hidden_size"});
  EXPECT_EQ(nearest("heads", names), (std::vector<std::string>{"num_attention_heads", "num_key_value_heads"}));
  EXPECT_TRUE(nearest("banana", names).empty());
}

TEST(DidYouMean, ListsEverythingWhenNothingIsNear) {
  EXPECT_EQ(did_you_mean("cosin", {"LINEAR", "COSINE"}), "did you mean \"COSINE\"?");
  EXPECT_EQ(did_you_mean("aab", {"aac", "aad"}), "did you mean \"aac\" or \"aad\"?");
  EXPECT_EQ(did_you_mean("zigzag", {"LINEAR", "COSINE"}), "choose one of LINEAR, COSINE");
}

}  // namespace
}  // namespace tessera
