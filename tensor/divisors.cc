#include "tensor/divisors.h"

#include <vector>

namespace tessera {

std::string divisors(int64_t n) {
  std::vector<int64_t> below, above;  // sqrt(n), the others from n down
  for (int64_t d = 1; d <= n / d; ++d) {
    if (n % d != 0) continue;
    below.push_back(d);
    if (d != n / d) above.push_back(n / d);
  }
  below.insert(below.end(), above.rbegin(), above.rend());

  constexpr size_t kMost = 16;
  const bool cut = below.size() > kMost;
  std::string text;
  for (size_t i = 0; i < (cut ? kMost - 1 : below.size()); ++i)
    text.append(i == 0 ? "" : ", ").append(std::to_string(below[i]));
  return cut ? text.append(", ..., ").append(std::to_string(n)) : text;
}

}  // namespace tessera
