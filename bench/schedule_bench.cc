// How long schedules take to make: 10,000 are generated, verified and simulated, of all kinds in turn, with random
// numbers of ranks and microbatches and random times of every stage. schedule_bench [COUNT]
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <random>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/verify.h"
#include "scaling/planning/simulate.h"

int main(int argc, char** argv) {
  using namespace tessera;
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  const int count = argc > 1 ? std::atoi(argv[1]) : 10000;
  std::mt19937 random(1);
  const auto draw = [&](int from, int to) { return std::uniform_int_distribution<int>(from, to)(random); };
  const auto time = [&] { return std::uniform_real_distribution<double>(0.5, 2)(random); };
  int64_t actions = 0;
  std::array<double, 3> spent{};
  for (int i = 0; i < count; ++i) {
    ScheduleSpec spec{
        .kind = static_cast<ScheduleKind>(i % kScheduleKinds), .ranks = draw(1, 8), .microbatches = draw(1, 32)};
    spec.costs.latency = 0.1 * time();
    for (int s = 0; s < spec.ranks * own_chunks(spec.kind); ++s) spec.costs.stages.push_back({time(), time(), time()});
    const auto begin = Clock::now();
    const PipelineSchedule schedule = generate(spec);
    const auto generated = Clock::now();
    verify(schedule);
    const auto verified = Clock::now();
    if (simulate(schedule, {.passes = spec.costs}).makespan <= 0) return 1;
    spent[0] += seconds(generated - begin);
    spent[1] += seconds(verified - generated);
    spent[2] += seconds(Clock::now() - verified);
    for (const Schedule& list : schedule.ranks) actions += static_cast<int64_t>(list.size());
  }
  fmt::print(
      "{} schedules, {} actions on average, one thread: {:.2f} s (generate {:.2f}, verify {:.2f}, simulate {:.2f})\n",
      count, actions / count, spent[0] + spent[1] + spent[2], spent[0], spent[1], spent[2]);
}
