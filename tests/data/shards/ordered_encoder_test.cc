#include "data/shards/ordered_encoder.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>

#include "tensor/check.h"

namespace tessera {
namespace {

std::vector<int32_t> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

TEST(OrderedEncoder, KeepsTheOrderWhateverTheThreadsDo) {
  std::mt19937 random(1);
  std::vector<std::string> documents;
  for (int d = 0; d < 3000; ++d) {
    const size_t length = d % 97 == 0 ? 300'000 : random() % 2000;  // several to a job, and jobs of one
    documents.push_back(std::string(length, static_cast<char>('a' + d % 26)) + std::to_string(d));
  }
  for (const int threads : {1, 2, 7}) {
    std::vector<std::vector<int32_t>> encoded;
    std::atomic<uint32_t> calls{0};
    OrderedEncoder encoder(
        threads,
        [&](std::string_view text, std::vector<int32_t>& tokens) {
          if (calls++ % 64 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          tokens.insert(tokens.end(), text.begin(), text.end());
        },
        [&](std::span<const int32_t> tokens) { encoded.emplace_back(tokens.begin(), tokens.end()); });
    for (const std::string& document : documents) encoder.add(document);
    encoder.finish();
    ASSERT_EQ(encoded.size(), documents.size());
    for (size_t d = 0; d < documents.size(); ++d) ASSERT_EQ(encoded[d], bytes_of(documents[d])) << d;
  }
}

TEST(OrderedEncoder, HoldsABoundedAmount) {
  int64_t added = 0, delivered = 0, most = 0;
  OrderedEncoder encoder(
      2,
      [](std::string_view text, std::vector<int32_t>& tokens) { tokens.push_back(static_cast<int32_t>(text.size())); },
      [&](std::span<const int32_t> tokens) { delivered += tokens[0]; });
  const std::string document(1 << 20, 'x');
  for (int d = 0; d < 300; ++d) {
    encoder.add(document);
    added += std::ssize(document);
    most = std::max(most, added - delivered);
  }
  encoder.finish();
  EXPECT_EQ(delivered, added);
  EXPECT_LE(most, 8 * std::ssize(document)) << "two threads, four jobs each, a document of 1 MiB is a job";
}

TEST(OrderedEncoder, PassesErrorsOn) {
  for (const bool at_once : {true, false}) {
    int delivered = 0;
    OrderedEncoder encoder(
        3,
        [](std::string_view text, std::vector<int32_t>&) {
          if (text == "bad") throw DataError("bad document");
        },
        [&](std::span<const int32_t>) { ++delivered; });
    encoder.add(std::string(300'000, 'x'));
    encoder.add("bad");
    if (at_once) {
      EXPECT_THROW(encoder.finish(), DataError);
      EXPECT_EQ(delivered, 1) << "what came before the error was delivered";
    }
  }  // and an encoder that is given up, or never finished, ends its threads
}

}  // namespace
}  // namespace tessera
