// A number with its interval.
#pragma once

namespace tessera {

struct Estimate {
  double value = 0, low = 0, high = 0;
};

}  // namespace tessera
