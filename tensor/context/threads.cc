#include "tensor/context/threads.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "tensor/context/context.h"

namespace tessera {

void parallel_for(const Context& context, int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t grains = (count + grain - 1) / grain;
  const int parts = static_cast<int>(std::min<int64_t>(context.threads(), grains));
  if (parts <= 1) {
    body(0, count);
    return;
  }
#pragma omp parallel num_threads(parts)
  {
    // The runtime may give fewer threads than asked for (inside another parallel region, or at a thread limit).
    const int team = omp_get_num_threads();
    for (int64_t part = omp_get_thread_num(); part < parts; part += team) {
      const int64_t begin = std::min(count, grains * part / parts * grain);
      const int64_t end = std::min(count, grains * (part + 1) / parts * grain);
      if (begin < end) body(begin, end);
    }
  }
}

void parallel_tasks(const Context& context, int64_t count, FunctionRef<void(int64_t, int)> task) {
  const int workers = static_cast<int>(std::min<int64_t>(context.threads(), count));
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(workers)
  for (int64_t i = 0; i < count; ++i) task(i, omp_get_thread_num());
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  // cgroup v2: "max 100000" or "200000 100000" (quota and period in microseconds).
  std::ifstream limit("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (limit >> quota >> period && quota != "max" && period > 0) {
    cores = std::min(cores, std::max(1, static_cast<int>(std::floor(std::stod(quota) / period))));
  }
  return std::max(cores, 1);
}

}  // namespace tessera
