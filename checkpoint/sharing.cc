#include "checkpoint/sharing.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "checkpoint/format/hash.h"
#include "parallel/comm/agreement.h"

namespace tessera {
namespace {

// A line "FIRST END TENSOR" for each slice.
std::string encode(const std::vector<HeldRows>& held) {
  std::string text;
  for (const HeldRows& one : held) {
    TESSERA_CHECK(one.tensor.find('\n') == std::string::npos, "names of tensors are one line: " + one.tensor);
    text += fmt::format("{} {} {}\n", one.rows.begin, one.rows.end, one.tensor);
  }
  return text;
}

std::vector<HeldRows> decode(const std::string& text) {
  std::vector<HeldRows> held;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    HeldRows& one = held.emplace_back();
    at = std::from_chars(at, end, one.rows.begin).ptr + 1;
    at = std::from_chars(at, end, one.rows.end).ptr + 1;
    const char* const line = std::find(at, end, '\n');
    one.tensor.assign(at, line);
    at = line + 1;
  }
  return held;
}

// A slice of any rank: `mine` is its number on the rank in question, or -1.
struct Holder {
  Interval rows;
  int mine;
};

void append(std::vector<Interval>& rows, const Interval& more) {
  if (more.empty()) return;
  if (!rows.empty() && rows.back().end == more.begin) {
    rows.back().end = more.end;
  } else {
    rows.push_back(more);
  }
}

// Cuts the tensor's rows where any slice begins or ends: within a cut, the holders are the same for all rows.
void share_tensor(const std::string& tensor, const std::vector<Holder>& holders,
                  std::vector<std::vector<Interval>>& shares) {
  std::vector<int64_t> cuts;
  for (const Holder& holder : holders) {
    cuts.push_back(holder.rows.begin);
    cuts.push_back(holder.rows.end);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  // Another holder begins for each tensor: else the first would get all that cannot be split.
  const uint64_t turn = hash128(tensor).low;
  for (size_t c = 0; c + 1 < cuts.size(); ++c) {
    const Interval cut{cuts[c], cuts[c + 1]};
    std::vector<int> here;
    for (const Holder& holder : holders) {
      if (holder.rows.begin <= cut.begin && cut.end <= holder.rows.end) here.push_back(holder.mine);
    }
    const int count = static_cast<int>(here.size());
    for (int i = 0; i < count; ++i) {
      if (here[i] < 0) continue;
      const int part = static_cast<int>((static_cast<uint64_t>(i) + turn) % static_cast<uint64_t>(count));
      append(shares[here[i]], shard(cut, count, part));
    }
  }
}

}  // namespace

std::vector<HeldRows> held_rows(const State& state) {
  std::vector<HeldRows> held;
  for (const StateSlice& slice : state.slices) held.push_back({slice.name, slice.rows});
  return held;
}

HeldByRank gather_held(Comm& world, const State& state) {
  HeldByRank held;
  for (const std::string& text : all_texts(world, encode(held_rows(state)))) held.push_back(decode(text));
  return held;
}

std::vector<std::vector<Interval>> share_rows(const HeldByRank& held, int rank) {
  struct Shared {
    std::vector<Interval> own;
    std::vector<Holder> holders;  // of any of the own rows
  };
  std::map<std::string, Shared> tensors;  // of this rank
  for (const HeldRows& own : held[rank]) tensors[own.tensor].own.push_back(own.rows);
  for (size_t r = 0; r < held.size(); ++r) {
    for (size_t i = 0; i < held[r].size(); ++i) {
      const HeldRows& one = held[r][i];
      const auto it = tensors.find(one.tensor);
      if (it == tensors.end()) continue;
      const bool shared = std::any_of(it->second.own.begin(), it->second.own.end(),
                                      [&](const Interval& own) { return !intersect(own, one.rows).empty(); });
      if (shared) it->second.holders.push_back({one.rows, static_cast<int>(r) == rank ? static_cast<int>(i) : -1});
    }
  }
  std::vector<std::vector<Interval>> shares(held[rank].size());
  for (const auto& [tensor, shared] : tensors) share_tensor(tensor, shared.holders, shares);
  return shares;
}

}  // namespace tessera
