// The divisors of a number as text, for messages that say what would fit.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

// "1, 2, 3, 4, 6, 12": in ascending order, of n >= 1; of more than sixteen the first fifteen and n. Takes sqrt(n) steps.
std::string divisors(int64_t n);

}  // namespace tessera
