#include "model/shape/context_exchange.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "model/shape/block_plan.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using Outer = ContextExchange::Outer;
constexpr const char* kHybrid = "ulysses-ring:";

std::optional<ContextExchange> parse_exchange(const std::string& text) {
  if (text == "gather") return ContextExchange{};
  if (text == "ring") return ContextExchange{.outer = Outer::Ring};
  if (text == "ulysses") return ContextExchange{.trading = ContextExchange::kAll};
  if (!text.starts_with(kHybrid)) return std::nullopt;
  int trading = 0;
  const char* const first = text.data() + std::string(kHybrid).size();
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, trading);
  if (error != std::errc() || end != last || trading < 1) return std::nullopt;
  return ContextExchange{.outer = Outer::Ring, .trading = trading};
}

// Whether a rank that gets `q` query heads of groups of `queries_per_key` gets whole groups, or a part of one.
bool groups_fit(int64_t q, int64_t queries_per_key) { return q % queries_per_key == 0 || queries_per_key % q == 0; }

}  // namespace

std::string name(const ContextExchange& exchange) {
  if (exchange.trading == ContextExchange::kAll) return "ulysses";
  if (exchange.outer == Outer::Gather) return "gather";
  return exchange.trading == 1 ? "ring" : fmt::format("{}{}", kHybrid, exchange.trading);
}

std::vector<ContextExchange> context_exchange_plan(const std::string& text, int blocks) {
  return block_plan({.field = "parallel.context_exchange",
                     .choices = "gather, ring, ulysses or ulysses-ring:2",
                     .example = "ring:0-3,ulysses-ring:2:4-7"},
                    text, blocks, ContextExchange{}, parse_exchange);
}

void check_exchange(const ContextExchange& exchange, int cp, int64_t q_heads, int64_t kv_heads) {
  const int trading = exchange.ranks_of_unit(cp);
  if (cp % trading != 0) {
    throw UsageError(
        fmt::format("parallel.context_exchange = {}: {} ranks trade heads, which is no divisor of "
                    "parallel.cp = {}; choose a divisor, gather or ring",
                    name(exchange), trading, cp));
  }
  const int64_t queries_per_key = q_heads / kv_heads;
  const auto fits = [&](int ranks) { return q_heads % ranks == 0 && groups_fit(q_heads / ranks, queries_per_key); };
  if (fits(trading)) return;
  std::vector<int> others;
  for (int ranks = 1; ranks <= cp; ++ranks) {
    if (cp % ranks == 0 && fits(ranks)) others.push_back(ranks);
  }
  throw UsageError(fmt::format(
      "parallel.context_exchange = {}: {} ranks share {} query heads and {} key-value heads of a tensor-parallel rank; "
      "each needs an equal number of query heads, whole groups of {} or an equal part of one; choose gather, ring, or "
      "ulysses-ring:N with N from {}",
      name(exchange), trading, q_heads, kv_heads, queries_per_key, fmt::join(others, ", ")));
}

int64_t ExchangeShape::group(Outer outer, Target target) const {
  if (target.device == Device::Cuda) {
    if (outer == Outer::Ring || units.units == 1) return kv_heads;  // blocks come beside attention, or nothing does
    int64_t heads = std::max<int64_t>(1, kv_heads / 2);
    while (kv_heads % heads != 0) --heads;
    return heads;
  }
  int64_t heads = std::min<int64_t>(target.threads, kv_heads);
  while (kv_heads % heads != 0) ++heads;
  return heads;
}

ExchangeShape exchange_shape(const ContextExchange& exchange, int cp, int cp_rank, int64_t slots, int64_t q_heads,
                             int64_t kv_heads, int64_t head_dim, DType compute) {
  const int trading = exchange.ranks_of_unit(cp);
  const int64_t q = q_heads / trading;
  return {.units = {.units = cp / trading, .unit = cp_rank / trading, .ranks = trading, .slots = trading * slots},
          .member = cp_rank % trading,
          .q_heads = q,
          .kv_heads = std::max<int64_t>(1, q / (q_heads / kv_heads)),
          .head_dim = head_dim,
          .compute = compute};
}

}  // namespace tessera
