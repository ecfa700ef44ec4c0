// What the collectives cost beside a plain copy: mpirun -np 2 --bind-to none comm_bench [MIB ...]
//
// GB/s are the bytes that a rank receives from its peers, over the time of the fastest round, on the slowest
// rank. "copy" moves as many bytes by memcpy on all ranks at once: a collective cannot be faster, and a
// reduce-scatter has the additions beside it ("add").
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "parallel/comm/comm_mpi.h"
#include "tensor/memory/buffer.h"

namespace tessera {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void measure(Comm& world, const char* what, int64_t received_bytes, const std::function<void()>& call) {
  constexpr int kRounds = 100;
  double time = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    world.barrier();
    const double begin = seconds();
    call();
    time = std::min(time, world.max(seconds() - begin));
  }
  if (world.rank() == 0) {
    fmt::print("  {:<28} {:>10.1f} us {:>8.2f} GB/s\n", what, time * 1e6,
               static_cast<double>(received_bytes) / time / 1e9);
  }
}

// `bytes` of gathered or reduced tensor.
void measure_all(Comm& world, int64_t bytes, DType dtype) {
  const int n = world.size();
  const int64_t rows = std::max<int64_t>(1, bytes / size_of(dtype) / n);
  const int64_t part_bytes = rows * size_of(dtype), received = part_bytes * (n - 1);
  const Buffer whole_memory(Device::Cpu, part_bytes * n), other_memory(Device::Cpu, part_bytes * n),
      part_memory(Device::Cpu, part_bytes);
  std::memset(whole_memory.data(), 0, whole_memory.bytes());
  std::memset(other_memory.data(), 0, other_memory.bytes());
  std::memset(part_memory.data(), 0, part_memory.bytes());
  const Tensor whole(whole_memory.data(), Shape{n * rows}, dtype), other(other_memory.data(), Shape{n * rows}, dtype),
      part(part_memory.data(), Shape{rows}, dtype);
  const Tensor own = whole.rows(world.rank() * rows, (world.rank() + 1) * rows);

  if (world.rank() == 0) fmt::print("{} bytes of {} over {} ranks\n", part_bytes * n, name(dtype), n);
  measure(world, "copy", received, [&] { std::memcpy(whole.data(), other.data(), received); });
  measure(world, "add", received, [&] {
    std::vector<const std::byte*> parts;
    for (int r = 0; r < n; ++r) parts.push_back(static_cast<const std::byte*>(whole.data()) + r * part_bytes);
    reduce_in_rank_order(parts, static_cast<std::byte*>(part.data()), rows, dtype, Reduction::Sum);
  });
  measure(world, "all_gather", received, [&] { world.all_gather(part, whole); });
  measure(world, "all_gather in place", received, [&] { world.all_gather(own, whole); });
  measure(world, "reduce_scatter_sum", received, [&] { world.reduce_scatter_sum(whole, part); });
  measure(world, "reduce_scatter_sum in place", received, [&] { world.reduce_scatter_sum(whole, own); });
  measure(world, "all_reduce_sum", 2 * received, [&] { world.all_reduce_sum(whole); });
  measure(world, "all_to_all", received, [&] { world.all_to_all(whole, other); });
  measure(world, "send to the next", part_bytes, [&] {
    Request received_one = world.receive(part, (world.rank() + n - 1) % n);
    Request sent = world.send(whole.rows(0, rows), (world.rank() + 1) % n);
    sent.wait();
    received_one.wait();
  });
}

int run(int argc, char** argv) {
  std::vector<double> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atof(argv[i]));
  if (sizes.empty()) sizes = {0.0001, 0.03, 1, 12};
  MpiSession session;
  const std::unique_ptr<Comm> world = session.world();
  for (double mib : sizes) {
    for (DType dtype : {DType::F32, DType::BF16}) measure_all(*world, static_cast<int64_t>(mib * (1 << 20)), dtype);
  }
  measure(*world, "barrier", 0, [&] { world->barrier(); });
  measure(*world, "sum of one number", 0, [&] { world->sum(1.0); });
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::run(argc, argv); }
