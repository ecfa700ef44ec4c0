// What a run has been trained on: the recorded history that, with the seed, decides the data order.
//
// The history is a list of periods, each with its mixture. Sample g of the run belongs to the last period that begins
// at or before g; inside it the mixture says which source and which of its samples since the period began, and the
// source's `base` is how many samples it had given before. So a run whose weights change, or whose sources come and
// go, repeats and skips nothing inside any source. Skipping data is moving the sample cursor: what is jumped over is
// counted as given.
//
// The text form goes into the checkpoint's cursors:
//
//   tessera data history 1
//   period FIRST_SAMPLE
//   source WEIGHT BASE SAMPLES IDENTITY NAME        (WEIGHT in units of 2^-32; NAME to the end of the line)
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
  int64_t samples = 0;   // of one epoch
  std::string identity;  // of its data and how they are cut into samples: no white space
};

struct PeriodSource {
  std::string name;
  uint64_t weight = 0;  // units of 2^-32; 0: paused or gone, kept for its base
  int64_t base = 0;     // samples given before the period
  int64_t samples = 0;  // of one epoch
  std::string identity;
  bool operator==(const PeriodSource&) const = default;
};

struct Period {
  int64_t first_sample = 0;
  std::vector<PeriodSource> sources;  // ascending by name: the order in the config does not matter
  bool operator==(const Period&) const = default;
};

class DataHistory {
 public:
  struct Place {
    int period = 0;
    int source = 0;     // index into the period's sources
    int64_t index = 0;  // among all samples that the source has given in the run
  };

  // Says what samples from first_sample on are drawn from. Does nothing when that is what the last period says, and
  // replaces the last period when it begins there, too. Throws UsageError: no sources, two of one name, a bad name or
  // weight; DataError: a source that the history knows holds other data now.
  void change(int64_t first_sample, const std::vector<SourceShare>& sources);

  Place locate(int64_t g) const;

  const std::vector<Period>& periods() const { return periods_; }

  std::string to_text() const;
  static DataHistory from_text(std::string_view text);  // throws DataError naming the line

  bool operator==(const DataHistory& other) const { return periods_ == other.periods_; }

 private:
  void add(Period period);

  std::vector<Period> periods_;    // ascending by first_sample
  std::vector<Mixture> mixtures_;  // of the periods
};

}  // namespace tessera
