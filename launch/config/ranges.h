// The range of every number of a config, and of the products that are made of several. What is in range can be
// multiplied in 64 bits, so the rules that come after need no care of their own.
#pragma once

#include <string>

#include "launch/config/problems.h"

namespace google::protobuf {
class Message;
}

namespace tessera {

class RunConfig;  // launch/run.proto

struct Range {
  double low, high;
  // The bound itself is no value.
  bool above_low = false, below_high = false;
  // What a message says to a value beyond; nullptr: the range in numbers.
  const char* rule = nullptr;

  bool contains(double value) const;
  // "1 to 16,384", "above 0, to 1", "0 to below 1".
  std::string text() const;
};

// Of the number at this path, written without the indices of lists ("data.train.weight"); nullptr for one that may be
// anything.
const Range* range_of(const std::string& path);

// Single numbers: finite, and in range. The least values of optimizer and lr_schedule are optim/'s to check. Sections
// that are not set are made.
void check_ranges(RunConfig& config, const Origins& origins, Problems& problems);

// Products, once the model's sizes are known: ranks, tokens of a microbatch, bytes of the whole state.
void check_products(const RunConfig& config, const Origins& origins, Problems& problems);

}  // namespace tessera
