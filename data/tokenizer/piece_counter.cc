#include "data/tokenizer/piece_counter.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "tensor/check.h"

namespace tessera {
namespace {

void add_count(PieceCounts& counts, std::string_view piece, int64_t count) {
  if (const auto it = counts.find(piece); it != counts.end()) {
    it->second += count;
  } else {
    counts.emplace(piece, count);
  }
}

}  // namespace

PieceCounter::PieceCounter(const Pretokenizer& pretokenizer, int threads, int64_t max_pieces, int64_t batch_bytes)
    : pretokenizer_(pretokenizer), max_pieces_(max_pieces), batch_bytes_(batch_bytes) {
  TESSERA_CHECK(threads >= 1 && max_pieces >= 4 && batch_bytes >= 1, "options of the piece counter");
  scratch_.resize(static_cast<size_t>(threads));
}

void PieceCounter::add(std::string text) {
  bytes_in_batch_ += static_cast<int64_t>(text.size());
  batch_.push_back(std::move(text));
  if (bytes_in_batch_ >= batch_bytes_) count_batch();
}

PieceCounts PieceCounter::finish() {
  count_batch();
  return std::exchange(counts_, {});
}

void PieceCounter::count_text(std::string_view text, Pretokenizer::Scratch& scratch, PieceCounts& counts) const {
  pretokenizer_.split(text, scratch, [&](std::string_view piece) {
    for (; piece.size() > kMaxPieceBytes; piece.remove_prefix(kMaxPieceBytes))
      add_count(counts, piece.substr(0, kMaxPieceBytes), 1);
    add_count(counts, piece, 1);
  });
}

void PieceCounter::count_batch() {
  const size_t workers = std::min(scratch_.size(), std::max<size_t>(1, batch_.size()));
  std::vector<PieceCounts> counts(workers);
  // Per text, so that of several errors the first one in the corpus is thrown.
  std::vector<std::exception_ptr> errors(batch_.size());
  std::atomic<size_t> next = 0;
  const auto work = [&](size_t worker) {
    for (size_t i = next++; i < batch_.size(); i = next++) {
      try {
        count_text(batch_[i], scratch_[worker], counts[worker]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t worker = 1; worker < workers; ++worker) threads.emplace_back(work, worker);
    work(0);
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  batch_.clear();
  bytes_in_batch_ = 0;
  for (PieceCounts& part : counts) {
    for (const auto& [piece, count] : part) add_count(counts_, piece, count);
    part = {};
  }
  if (static_cast<int64_t>(counts_.size()) > max_pieces_) prune();
}

void PieceCounter::prune() {
  using Entry = std::pair<int64_t, std::string_view>;
  std::vector<Entry> entries;
  entries.reserve(counts_.size());
  for (const auto& [piece, count] : counts_) entries.emplace_back(count, piece);
  const auto kept = entries.begin() + max_pieces_ / 4 * 3;
  std::nth_element(entries.begin(), kept, entries.end(), [](const Entry& a, const Entry& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (auto it = kept; it != entries.end(); ++it) {
    ++pruned_pieces_;
    pruned_bytes_ += it->first * static_cast<int64_t>(it->second.size());
    counts_.erase(counts_.find(it->second));
  }
}

}  // namespace tessera
