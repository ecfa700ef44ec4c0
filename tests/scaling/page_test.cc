#include "scaling/page.h"

#include <gtest/gtest.h>

#include "scaling/text_file.h"

namespace tessera {
namespace {

TEST(Page, EscapesTextAndHoldsPictures) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("M"), "TQ==");
  EXPECT_EQ(base64("Ma"), "TWE=");
  EXPECT_EQ(base64("Man"), "TWFu");
  EXPECT_EQ(base64("\xff\xfe"), "//4=");
  const std::string path = ::testing::TempDir() + "page_test.png";
  replace_file(path, "Man");
  Page page("a < b");
  page.warning("one\ntwo");
  page.table({"h"}, {{"1 & 2"}, {"word"}});
  page.picture(path, "\"c\"");
  const std::string html = page.html();
  for (const char* part : {"<h1>a &lt; b</h1>", "one<br>\ntwo", "<td class=\"n\">1 &amp; 2</td>", "<td>word</td>",
                           "data:image/png;base64,TWFu", "&quot;c&quot;"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
}

}  // namespace
}  // namespace tessera
