// Which context-parallel rank holds which tokens of a microbatch: a pure function of the documents' lengths, worked out
// on every rank alike without communication.
//
// Each rank has a fixed number of token slots; what it has left over is padding, which counts nowhere. What there is to
// balance is the mixers' work (parallel/context/mixer_work.h), summed over layers. A plan always exists when the slots
// of all ranks suffice for the tokens. There are two ways to deal:
//
// HeadTail. The longest documents are split: cut into 2 * cp pieces, of which rank r gets the r-th from the front and
// the r-th from the back, since a query's work grows with its position (as for causal masks in Megatron-LM and others).
// All other documents are placed whole, longest first, on the rank with the least work that has room (Graham, "Bounds on
// multiprocessing timing anomalies", 1969). Of all numbers of split documents, the plan takes the one that leaves the
// fewest tokens in split documents (those travel) with the busiest rank's work within kContextBalance of the mean.
// Pieces are whole attention tiles, so that tiles stay full; if the work cannot be balanced so (few tokens for many
// ranks), cuts go between any tokens; if not even so, the best balance is taken. A piece without room on its rank is cut
// to fill the ranks that have some.
//
// Contiguous. The documents in their order, one behind the other, are cut into one part for each rank, in the order of
// ranks, of equal work as far as slots allow; cuts inside a document lie at whole tiles of it where that leaves slots
// enough. So each rank has one piece of a document, rank r + 1 goes on where rank r ends, and a recurrence crosses each
// border once: its state goes from one rank to the next.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/batch.h"
#include "parallel/context/mixer_work.h"

namespace tessera {

// The busiest rank's work over the mean of all ranks that a plan strives for.
constexpr double kContextBalance = 1.10;

// Neighbouring tokens of one document on one rank; no other piece of that rank goes on where it ends.
struct ContextPiece {
  int32_t rank = 0;
  int32_t slot = 0;      // of its first token on that rank
  int32_t source = 0;    // its first token's place in the packed microbatch, before dealing
  int32_t length = 0;    // tokens, at least one
  int32_t document = 0;  // id within the microbatch
  int32_t position = 0;  // of its first token inside its document
};

// How tokens are dealt to ranks: see above.
enum class ContextDeal : uint8_t { HeadTail, Contiguous };

// Token slots of one rank for a microbatch of `tokens`: ceil((1 + slack) * tokens / cp), rounded up to a multiple of
// tp * kAttentionTile; with cp = 1, tokens themselves. Throws UsageError with the rule and what would fit when there
// are fewer tiles than ranks, or the slack is negative or not finite.
int64_t context_slots(int64_t tokens, int cp, int tp, double slack);

class ContextPlan {
 public:
  struct Options {
    int ranks = 1;                                                    // cp
    int64_t tokens = 0;                                               // of a microbatch, padding included
    int64_t slots = 0;                                                // of one rank: context_slots()
    std::vector<MixerWork> work = {attention_work(AttentionKind{})};  // of the model's layers, by kind
    ContextDeal deal = ContextDeal::HeadTail;
  };

  // Takes the memory for the worst packing. Throws UsageError when ranks * slots < tokens.
  explicit ContextPlan(Options options);

  // Deals the tokens of these segments: ascending, not overlapping, each the whole of a document or of what the
  // microbatch has of it. Overwrites the plan. Allocates nothing.
  void make(std::span<const Segment> segments);

  int ranks() const { return options_.ranks; }
  int64_t slots() const { return options_.slots; }

  // By rank, then slot: of all ranks, and of one. A rank's pieces lie side by side from slot 0: first those of split
  // documents (with parts on other ranks too), then whole documents. Pieces of a document on one rank ascend with their
  // position. Pieces begin at a multiple of kAttentionTile while all before them on the rank are whole tiles; documents
  // with a ragged part on a rank come last among the split ones.
  std::span<const ContextPiece> pieces() const { return std::span(pieces_).first(first_.back()); }
  std::span<const ContextPiece> pieces(int rank) const;

  // The first slots of a rank that hold pieces of split documents: what of it travels.
  int64_t split_slots(int rank) const { return split_.at(rank); }
  // Slots of a rank that hold tokens; the rest is padding.
  int64_t filled_slots(int rank) const { return filled_.at(rank); }
  int64_t split_documents() const { return split_documents_; }

  // Of a rank's tokens, summed over the layers of all kinds; of attention alone, the visible (query, key) pairs.
  int64_t work(int rank) const { return work_.at(rank); }
  // The busiest rank's work over the mean; 1 when there is none.
  double imbalance() const;

  static int64_t bytes(const Options& options);  // of memory that a plan takes

 private:
  // One way to deal head and tail: the `split` longest documents are cut, at multiples of `tile` tokens.
  struct HeadTail {
    int64_t split = 0;
    int64_t tile = 1;
  };
  // Whether a deal is only judged, or its pieces are written down.
  enum class Record : uint8_t { No, Yes };
  struct Verdict {
    double imbalance = 0;
    int64_t split_tokens = 0;  // of all documents with parts on several ranks
  };

  HeadTail best_head_tail();
  // Both overwrite filled_, work_ and split_documents_; where they record also pieces_, in no order and with the piece's
  // document split or whole (kSplit, kWhole) in place of its slot.
  Verdict deal_head_tail(const HeadTail& deal, Record record);
  void deal_contiguous();
  void begin_deal(Record record);
  int64_t contiguous_tokens(const Segment& document, int64_t begin, int64_t least, int64_t most, int64_t wanted) const;
  template <class Put>
  void deal_document(const Segment& document, Verdict& verdict, Put&& put_pieces);
  void deal_split(const Segment& document, int turn, int64_t tile);
  void put(const Segment& document, int64_t begin, int64_t end, int rank);
  void fill(const Segment& document, int64_t begin, int64_t end);
  void order_pieces();
  int64_t work_before(int64_t position) const;
  int least_busy(int64_t room) const;

  Options options_;
  std::vector<ContextPiece> pieces_;            // [tokens]: as many as there may be
  std::vector<int32_t> order_, late_;           // [tokens] segments: longest first; those that found no room whole
  std::vector<int32_t> first_;                  // [ranks + 1] into pieces_
  std::vector<int64_t> filled_, split_, work_;  // [ranks]
  int64_t split_documents_ = 0;

  // While a plan is made.
  std::span<const Segment> segments_;
  int64_t late_count_ = 0, piece_count_ = 0, total_work_ = 0;
  Record record_ = Record::No;
  static constexpr int kNowhere = -1, kSeveral = -2;
  int home_ = kNowhere;  // the rank that has all that was placed of the document in hand
};

}  // namespace tessera
