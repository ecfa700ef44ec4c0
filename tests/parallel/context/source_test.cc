#include "parallel/context/source.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "tensor/check.h"
#include "tensor/ops/attention/attention.h"
#include "tests/parallel/context/packings.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

// Random packings, another one for each step and microbatch, some with padding. Every token is its number in the data.
class WholeSource : public Source {
 public:
  WholeSource(int64_t tokens, int microbatches) : tokens_(tokens), data_(microbatches), batches_(microbatches) {
    for (Data& data : data_) data.segments.reserve(tokens);
  }

  void load(int64_t first_sample) override {
    targets_ = 0;
    for (int m = 0; m < microbatches(); ++m) {
      Data& data = data_[m];
      std::mt19937_64 random(first_sample * 10 + m);
      data.segments = testing::log_normal_packing(random, tokens_, std::exp(random() % 7), 0.3 * (random() % 5));
      if (random() % 2 == 0) data.segments.pop_back();
      data.token.assign(tokens_, 7);
      data.target.assign(tokens_, -1);
      data.position.assign(tokens_, 0);
      data.document.assign(tokens_, -1);
      for (const Segment& segment : data.segments) {
        for (int32_t i = segment.begin; i < segment.end; ++i) {
          data.token[i] = static_cast<int32_t>(first_sample * 1000003 + m * tokens_ + i);
          data.position[i] = i - segment.begin;
          data.document[i] = segment.document;
          if (i + 1 < segment.end) data.target[i] = data.token[i] + 1;
        }
        targets_ += segment.end - segment.begin - 1;
      }
      batches_[m] = {data.token, data.target, data.position, data.document, data.segments};
    }
  }
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m); }
  int64_t targets() const override { return targets_; }

 private:
  struct Data {
    std::vector<int32_t> token, target, position, document;
    std::vector<Segment> segments;
  };
  int64_t tokens_, targets_ = 0;
  std::vector<Data> data_;
  std::vector<Batch> batches_;
};

// What is known of a token, wherever it lies.
struct Token {
  int32_t token, target, position, document;
  auto operator<=>(const Token&) const = default;
};

std::vector<Token> tokens_of(const Batch& batch) {
  std::vector<Token> all;
  for (int64_t i = 0; i < batch.slots(); ++i)
    if (batch.document[i] >= 0)
      all.push_back({batch.tokens[i], batch.targets[i], batch.position[i], batch.document[i]});
  return all;
}

TEST(ContextSource, RanksTogetherHoldEveryTokenWithItsTarget) {
  constexpr int64_t kTokens = 1024;
  for (const int ranks : {2, 3, 4, 8}) {
    const ContextPlan::Options options{
        .ranks = ranks, .tokens = kTokens, .slots = context_slots(kTokens, ranks, 1, 0.02)};
    WholeSource whole(kTokens, 3);
    std::vector<std::unique_ptr<WholeSource>> own;  // each rank reads the data itself
    std::vector<std::unique_ptr<ContextSource>> parts;
    for (int rank = 0; rank < ranks; ++rank) {
      own.push_back(std::make_unique<WholeSource>(kTokens, 3));
      parts.push_back(std::make_unique<ContextSource>(*own.back(), options, rank));
    }
    for (int64_t step = 0; step < 100; ++step) {
      whole.load(step);
      int64_t targets = 0;
      for (auto& part : parts) {
        part->load(step);
        targets += part->targets();
      }
      ASSERT_EQ(targets, whole.targets()) << "the loss is divided by the same number";
      for (int m = 0; m < 3; ++m) {
        std::vector<Token> dealt;
        int64_t pairs = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const Batch& batch = parts[rank]->batch(m);
          ASSERT_EQ(batch.slots(), options.slots);
          ASSERT_NE(batch.context, nullptr);
          ASSERT_EQ(batch.context->filled_slots(rank), std::ssize(tokens_of(batch)));
          pairs += attention_pairs({batch.position, batch.document}, 50);
          // Segments say the same as the arrays, in order, and leave out the padding.
          int32_t slot = 0;
          for (const Segment& segment : batch.segments) {
            ASSERT_EQ(segment.begin, slot);
            for (; slot < segment.end; ++slot) {
              ASSERT_EQ(batch.document[slot], segment.document);
              ASSERT_EQ(batch.position[slot], segment.position + slot - segment.begin);
            }
          }
          for (; slot < options.slots; ++slot) {
            ASSERT_EQ(batch.document[slot], -1);
            ASSERT_EQ(batch.targets[slot], -1);
            ASSERT_EQ(batch.position[slot], 0);
            ASSERT_EQ(batch.tokens[slot], 0);
          }
          const std::vector<Token> here = tokens_of(batch);
          dealt.insert(dealt.end(), here.begin(), here.end());
        }
        std::sort(dealt.begin(), dealt.end(), [](const Token& a, const Token& b) {
          return a.document != b.document ? a.document < b.document : a.position < b.position;
        });
        ASSERT_EQ(dealt, tokens_of(whole.batch(m)));
        ASSERT_EQ(pairs, attention_pairs({whole.batch(m).position, whole.batch(m).document}, 50));
      }
    }
  }
}

TEST(ContextSource, LoadAllocatesNothingButWhatTheWholeSourceDoes) {
  constexpr int64_t kTokens = 4096;
  // Hands out again what is there.
  class Loaded : public WholeSource {
   public:
    using WholeSource::WholeSource;
    void load(int64_t) override {}
  };
  Loaded whole(kTokens, 2);
  whole.WholeSource::load(3);
  const ContextPlan::Options options{.ranks = 4, .tokens = kTokens, .slots = context_slots(kTokens, 4, 1, 0.02)};
  ContextSource source(whole, options, 1);
  const int64_t before = testing::allocations();
  source.load(0);
  source.load(1);
  EXPECT_EQ(testing::allocations(), before);
  EXPECT_EQ(ContextSource::bytes(options, 2), 2 * (ContextPlan::bytes(options) + 1088 * 32));
}

TEST(ContextSource, RefusesWhatIsDealtAlready) {
  WholeSource whole(512, 1);
  const ContextPlan::Options options{.ranks = 2, .tokens = 512, .slots = 320};
  ContextSource once(whole, options, 0);
  ContextSource twice(once, {.ranks = 2, .tokens = 320, .slots = 160}, 0);
  EXPECT_THROW(twice.load(0), InternalError);
  EXPECT_THROW(ContextSource(whole, options, 2), InternalError);
}

}  // namespace
}  // namespace tessera
