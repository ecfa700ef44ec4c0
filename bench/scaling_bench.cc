// scaling_bench [SETS [PART]]: what fits and intervals cost on one core, and how often 90 % intervals hold the truth
// over SETS (400) data sets of 60 runs with 0.5 % noise on log loss; only of designs whose title has PART.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "scaling/fit/projection.h"
#include "scaling/law/chinchilla.h"
#include "scaling/law/forms.h"
#include "tests/scaling/fit/coverage.h"

namespace tessera {
namespace {

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

const std::vector<double> kHoffmann = {1.69, 406.4, 410.7, 0.34, 0.28};
const std::vector<double> kBesiroglu = {1.82, 482.0, 2085.4, 0.3478, 0.3658};

void print_costs() {
  const auto form = make_form("chinchilla");
  const auto samples = testing::ladder(*form, form->theta(kHoffmann), {.sizes = 25, .ratios = 10, .noise = 0.005});
  Fit found;
  const double fitting = seconds_of([&] { found = fit(*form, samples); });
  const double refitting = seconds_of([&] { bootstrap(*form, samples, found, {.replicates = 1000}); });
  const double projecting = seconds_of([&] { fit_by_projection(Chinchilla(), samples); });
  fmt::print("{} runs, {} starts of which {} agree: fit {:.3f} s, by projection {:.3f} s, 1000 refits {:.2f} s\n",
             samples.size(), found.starts, found.agreeing, fitting, projecting, refitting);
}

std::string wanted;  // part of a title

void print_coverage(const std::string& title, const std::vector<double>& values, const testing::Ladder& shape,
                    double delta, int sets) {
  if (title.find(wanted) == std::string::npos) return;
  const auto form = make_form("chinchilla");
  const testing::Coverage found = testing::coverage(*form, values, shape, sets, 999, delta, 1);
  fmt::print("{:<44}", title);
  for (int held : found.held) fmt::print("{:>8.3f}", static_cast<double>(held) / sets);
  fmt::print("\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  const int sets = argc > 1 ? std::atoi(argv[1]) : 400;
  if (argc > 2) wanted = argv[2];
  print_costs();
  fmt::print("\nshare of {} data sets whose 90 % intervals hold the truth\n{:<44}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
             sets, "truth, design, objective", "E", "A", "B", "alpha", "beta", "100xC");
  const testing::Ladder wide{.noise = 0.005};
  const testing::Ladder narrow{.smallest = 5e6, .largest = 5e8, .fewest = 5, .most = 80, .noise = 0.005};
  print_coverage("Hoffmann, 1e7-3e9, D/N 5-320, Huber", kHoffmann, wide, kHuberDelta, sets);
  print_coverage("Hoffmann, 1e7-3e9, D/N 5-320, squares", kHoffmann, wide, kLeastSquares, sets);
  print_coverage("Besiroglu, 1e7-3e9, D/N 5-320, Huber", kBesiroglu, wide, kHuberDelta, sets);
  print_coverage("Hoffmann, 5e6-5e8, D/N 5-80, Huber", kHoffmann, narrow, kHuberDelta, sets);
  return 0;
}
