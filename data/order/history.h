// What a run has been trained on: the recorded history that, with the seed, decides the data order.
//
// The history is a list of periods, each with its mixture and its sequence length. Sample g of the run belongs to the
// last period that begins at or before g; inside it the mixture says which source and which of its samples since the
// period began, and the source's `base` is how many tokens it had given before. So a run whose weights change, or whose
// sources come and go, repeats and skips nothing inside any source. Skipping data is moving the sample cursor: what is
// jumped over is counted as given.
//
// Periods of one sequence length in a row are a source's stretch. Where a stretch ends and another length begins inside
// an epoch, data/order/continued_order.h says which samples of the new length the source goes on with.
//
// The text form goes into the checkpoint's cursors:
//
//   tessera data history 2
//   period FIRST_SAMPLE SEQUENCE_LENGTH
//   source WEIGHT BASE EPOCH IDENTITY NAME        (WEIGHT in units of 2^-32; BASE, EPOCH in tokens; NAME to the end of
//                                                  the line)
//
// Version 1 is read, too: its periods have no length, BASE and EPOCH count samples, and IDENTITY ends with
// "/SEQUENCE_LENGTH".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/order/mixture.h"

namespace tessera {

// A source as it is now.
struct SourceShare {
  std::string name;      // unique; not empty, no line ends
  double weight = 1;     // relative to the other sources; 0: not used
  int64_t samples = 0;   // of one epoch, at the sequence length at hand
  std::string identity;  // of its data: no white space
};

struct PeriodSource {
  std::string name;
  uint64_t weight = 0;  // units of 2^-32; 0: paused or gone, kept for its base
  int64_t base = 0;     // tokens given before the period
  int64_t epoch = 0;    // tokens of one epoch: of whole samples, as long as those that it was last used with
  std::string identity;
  bool operator==(const PeriodSource&) const = default;
};

struct Period {
  int64_t first_sample = 0;
  int64_t sequence_length = 0;
  std::vector<PeriodSource> sources;  // ascending by name: the order in the config does not matter
  bool operator==(const Period&) const = default;
};

// What a source gave in a row at one sequence length.
struct Stretch {
  int64_t sequence_length = 0;
  int64_t samples = 0;  // that it gave; of the stretch that a period belongs to: before the period
  bool operator==(const Stretch&) const = default;
};

class DataHistory {
 public:
  struct Place {
    int period = 0;
    int source = 0;     // index into the period's sources
    int64_t index = 0;  // among the samples of the source's stretch
  };

  // Says what samples from first_sample on are drawn from, and how long they are. Does nothing when that is what the
  // last period says, and replaces the last period when it begins there, too. Throws UsageError: no sources, two of one
  // name, a bad name or weight; DataError: a source that the history knows holds other data now.
  void change(int64_t first_sample, int64_t sequence_length, const std::vector<SourceShare>& sources);

  Place locate(int64_t g) const;

  // The stretches of a period's source up to the period's own, which is the last one.
  const std::vector<Stretch>& stretches(int period, int source) const { return stretches_.at(period).at(source); }

  // Of the tokens that the run was given before sample `end`, the share that it was given for the first time.
  double unique_share(int64_t end) const;

  const std::vector<Period>& periods() const { return periods_; }

  std::string to_text() const;
  static DataHistory from_text(std::string_view text);  // throws DataError naming the line

  bool operator==(const DataHistory& other) const { return periods_ == other.periods_; }

 private:
  void add(Period period);
  void remove_last();

  std::vector<Period> periods_;                               // ascending by first_sample
  std::vector<Mixture> mixtures_;                             // of the periods
  std::vector<std::vector<std::vector<Stretch>>> stretches_;  // of the periods' sources
};

}  // namespace tessera
