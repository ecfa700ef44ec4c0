// Configs of random changes: each is accepted or refused with a UsageError, soon, and nothing else happens.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "launch/config/parse.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "tensor/check.h"
#include "tensor/context/random.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

std::string example() {
  std::ifstream file(testing::source_dir() + "/configs/demo.textproto");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class Nonsense {
 public:
  explicit Nonsense(uint64_t round) : random_(round, "config") {}

  // One to four changes.
  std::string change(std::string text) {
    for (uint64_t left = 1 + below(4); left > 0 && !text.empty(); --left) {
      const size_t at = below(text.size());
      switch (below(5)) {
        case 0:
          text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text.erase(at, 1 + below(8));
          break;
        case 2:
          text.insert(at, text.substr(below(text.size()), 1 + below(40)));
          break;
        default:
          change_number(text, at);
      }
    }
    return text;
  }
  uint64_t below(uint64_t n) { return random_.below(draw_++, n); }

 private:
  // The first number from `at` on becomes another one, of any size.
  void change_number(std::string& text, size_t at) {
    const size_t begin = text.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    size_t end = text.find_first_not_of("0123456789.e+-", begin);
    if (end == std::string::npos) end = text.size();
    std::string number;
    switch (below(6)) {
      case 0:
        number = fmt::format("-{}", below(1000));
        break;
      case 1:
        number = std::to_string(random_.bits(draw_++) >> below(64));
        break;
      case 2:
        number = below(2) == 0 ? "nan" : "inf";
        break;
      case 3:
        number = fmt::format("1e{}", below(400));
        break;
      default:
        number = std::to_string(below(4097));
    }
    text.replace(begin, end - begin, number);
  }

  RandomStream random_;
  uint64_t draw_ = 0;
};

void survive(uint64_t rounds) {
  const std::string whole = example();
  ASSERT_FALSE(whole.empty());
  uint64_t accepted = 0, refused = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    Nonsense nonsense(round);
    const std::string text = nonsense.change(whole);
    RunConfig config;
    Origins origins;
    Problems problems;
    try {
      parse_config("run.textproto", text, config, origins, problems);
      problems.throw_if_any();
      resolve(config, origins, {.world_size = 1 << nonsense.below(4), .tokenizer_vocab_size = 4096});
      ++accepted;
    } catch (const UsageError& error) {
      ++refused;
      ASSERT_NE(std::string(error.what()), "") << text;
    }
  }
  EXPECT_GT(accepted, rounds / 50);
  EXPECT_GT(refused, rounds / 4);
}

TEST(ConfigNonsense, IsRefusedOrTaken) { survive(1000); }
TEST(ConfigNonsense, DISABLED_MuchIsRefusedOrTaken) { survive(100000); }

}  // namespace
}  // namespace tessera
