#include "tests/support/grid/grid.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tensor/check.h"
#include "tests/support/grid/fiber.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/streams.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tessera::grid {
namespace {

struct Copy {
  void* target;
  const void* source;
  int bytes;
};

struct Thread {
  Fiber fiber;
  dim3 index;
  int number = 0;
  bool finished = false;
  std::string waits_for;
  std::vector<Copy> copies;              // issued, not committed
  std::deque<std::vector<Copy>> groups;  // committed, oldest first
};

struct Barrier {
  int expected = 0;
  std::vector<Thread*> waiting;
};

struct Warp {
  uint32_t mask = 0;
  uint32_t arrived = 0;
  WarpOperation operation = nullptr;
  std::array<void*, kLanes> arguments{};
  std::array<Thread*, kLanes> threads{};
};

// A variable in static shared memory.
struct Declared {
  void* at;
  int64_t bytes;
};

// The block that runs, and the threads kept from block to block.
struct Machine {
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Thread*> runnable;
  std::map<int, Barrier> barriers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  std::vector<Declared> declared;
  Thread* current = nullptr;
  const FunctionRef<void()>* body = nullptr;
  std::string failure;
  int block_size = 0;
  uint64_t random = 0x9E3779B97F4A7C15u;
  Count counted{0, 0};
  std::map<std::string, int64_t> starts;
  char launch = 0, end = 0;  // addresses for acquire and release

  uint64_t draw(uint64_t bound) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return (random >> 11) % bound;
  }
};

Machine& machine() {
  static Machine instance;
  return instance;
}

void perform(const Copy& copy) {
  std::memcpy(copy.target, copy.source, static_cast<size_t>(copy.bytes));
  std::memset(static_cast<char*>(copy.target) + copy.bytes, 0, static_cast<size_t>(16 - copy.bytes));
}

bool inside(const void* at, int64_t bytes, const void* place, int64_t size) {
  const auto first = reinterpret_cast<uintptr_t>(place), address = reinterpret_cast<uintptr_t>(at);
  return first <= address && address + static_cast<uintptr_t>(bytes) <= first + static_cast<uintptr_t>(size);
}

bool in_shared_memory(const void* at, int64_t bytes) {
  const Machine& m = machine();
  return inside(at, bytes, m.shared.data(), static_cast<int64_t>(m.shared.size())) ||
         std::any_of(m.declared.begin(), m.declared.end(),
                     [&](const Declared& d) { return inside(at, bytes, d.at, d.bytes); });
}

bool at_multiple_of_16(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

// NaN in every floating-point type.
void poison(void* at, int64_t bytes) {
  if (bytes > 0) std::memset(at, 0xff, static_cast<size_t>(bytes));
}

// Gives up the turn; the thread is run again once it is runnable.
void pause(const std::string& why) {
  Thread& self = *machine().current;
  self.waits_for = why;
  self.fiber.suspend();
  self.waits_for.clear();
}

[[noreturn]] void fail(const std::string& message) {
  Machine& m = machine();
  if (m.failure.empty()) m.failure = message;
  m.current->fiber.leave();
}

void thread_main() {
  Machine& m = machine();
  acquire(&m.launch);
  (*m.body)();
  release(&m.end);
  m.current->finished = true;
  m.current->fiber.leave();
}

std::string where(const Thread& thread) {
  return "thread " + std::to_string(thread.number) + " of block (" + std::to_string(blockIdx.x) + ", " +
         std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ")";
}

void run_block(const std::string& name) {
  Machine& m = machine();
  m.barriers.clear();
  m.warps.assign((m.block_size + kLanes - 1) / kLanes, Warp{});
  poison(m.shared.data(), static_cast<int64_t>(m.shared.size()));
  for (const Declared& d : m.declared) poison(d.at, d.bytes);
  m.runnable.clear();
  for (int i = 0; i < m.block_size; ++i) {
    Thread& thread = *m.threads[i];
    thread.number = i;
    const unsigned int n = static_cast<unsigned int>(i);
    thread.index = dim3(n % blockDim.x, n / blockDim.x % blockDim.y, n / (blockDim.x * blockDim.y));
    thread.finished = false;
    thread.copies.clear();
    thread.groups.clear();
    thread.fiber.prepare(thread_main);
    m.runnable.push_back(&thread);
  }
  while (!m.runnable.empty() && m.failure.empty()) {
    const uint64_t chosen = m.draw(m.runnable.size());
    m.current = m.runnable[chosen];
    m.runnable[chosen] = m.runnable.back();
    m.runnable.pop_back();
    threadIdx = m.current->index;
    m.current->fiber.resume();
  }
  m.current = nullptr;
  for (int i = 0; i < m.block_size && m.failure.empty(); ++i) {
    if (!m.threads[i]->finished)
      m.failure = "deadlock: " + where(*m.threads[i]) + " waits for " + m.threads[i]->waits_for;
  }
  if (!m.failure.empty()) throw InternalError("kernel " + name + ": " + std::exchange(m.failure, {}));
  m.counted.blocks += 1;
  m.counted.threads += m.block_size;
}

}  // namespace

void run(const std::string& name, dim3 blocks, dim3 threads, int64_t shared_bytes, FunctionRef<void()> body) {
  // Ranks that are threads take turns; one that comes again from inside a kernel is told below.
  const std::lock_guard lock(device_mutex());
  const DeviceAccess access;
  Machine& m = machine();
  const int64_t size = int64_t{threads.x} * threads.y * threads.z;
  TESSERA_CHECK(m.current == nullptr, "a kernel starts no kernel");
  TESSERA_CHECK(size >= 1 && size <= 1024,
                "kernel " + name + ": 1 to 1024 threads a block, not " + std::to_string(size));
  TESSERA_CHECK(blocks.x >= 1 && blocks.y >= 1 && blocks.y <= 65535 && blocks.z >= 1 && blocks.z <= 65535,
                "kernel " + name + ": blocks of the grid");
  TESSERA_CHECK(shared_bytes <= kSharedMemory,
                "kernel " + name + ": " + std::to_string(shared_bytes) + " bytes of shared memory");
  while (static_cast<int64_t>(m.threads.size()) < size) m.threads.push_back(std::make_unique<Thread>());
  m.block_size = static_cast<int>(size);
  m.shared = std::vector<unsigned char>(shared_bytes);
  m.body = &body;
  gridDim = blocks;
  blockDim = threads;
  m.starts[name] += 1;
  release(&m.launch);
  for (unsigned int z = 0; z < blocks.z; ++z) {
    for (unsigned int y = 0; y < blocks.y; ++y) {
      for (unsigned int x = 0; x < blocks.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(name);
      }
    }
  }
  acquire(&m.end);
}

void set_seed(uint64_t seed) { machine().random = seed * 0xD1342543DE82EF95u + 0x9E3779B97F4A7C15u; }

Count count() { return machine().counted; }

std::map<std::string, int64_t> starts() { return machine().starts; }

void* shared_memory() { return machine().shared.data(); }

void declare_shared(void* at, int64_t bytes) {
  machine().declared.push_back({at, bytes});
  poison(at, bytes);
}

void check_matrix_row(const void* row) {
  if (!at_multiple_of_16(row)) fail("ldmatrix reads rows at multiples of 16 bytes");
  if (!in_shared_memory(row, 16)) fail("ldmatrix reads shared memory");
}

int lane() { return machine().current->number % kLanes; }

void barrier(int id, int threads) {
  Machine& m = machine();
  Thread* self = m.current;
  if (id < 0 || id > 15) fail("there is no barrier " + std::to_string(id));
  if (threads % kLanes != 0 && threads != m.block_size) fail("barriers count whole warps");
  Barrier& barrier = m.barriers[id];
  if (barrier.waiting.empty()) barrier.expected = threads;
  if (barrier.expected != threads) fail("barrier " + std::to_string(id) + " is waited for with different counts");
  release(&barrier);
  barrier.waiting.push_back(self);
  if (static_cast<int>(barrier.waiting.size()) == threads) {
    m.runnable.insert(m.runnable.end(), barrier.waiting.begin(), barrier.waiting.end());
    barrier.waiting.clear();
  }
  pause("barrier " + std::to_string(id));
  acquire(&barrier);
}

void warp(uint32_t mask, WarpOperation operation, void* argument) {
  Machine& m = machine();
  Thread* self = m.current;
  Warp& w = m.warps[self->number / kLanes];
  const int at = self->number % kLanes;
  if ((mask >> at & 1) == 0) fail(where(*self) + " is not in the mask of its warp operation");
  if (w.arrived == 0) {
    w.mask = mask;
    w.operation = operation;
  }
  if (w.mask != mask || w.operation != operation)
    fail("the lanes of a warp reach different operations: " + where(*self));
  w.arrived |= uint32_t{1} << at;
  w.arguments[at] = argument;
  w.threads[at] = self;
  release(&w);
  if (w.arrived == mask) {
    acquire(&w);
    operation(w.arguments);
    release(&w);
    for (int i = 0; i < kLanes; ++i) {
      if (mask >> i & 1) m.runnable.push_back(w.threads[i]);
    }
    w.arrived = 0;
    w.arguments.fill(nullptr);
  }
  pause("the other lanes of its warp");
  acquire(&w);
}

void store_quad(void* to, const std::array<uint32_t, 4>& words) {
  if (!at_multiple_of_16(to)) fail("16 bytes are written at once to multiples of 16");
  if (in_shared_memory(to, 16)) fail("st.global writes to shared memory");
  std::memcpy(to, words.data(), 16);
}

void copy_async(void* target, const void* source, int bytes) {
  if (!at_multiple_of_16(target) || !at_multiple_of_16(source)) fail("cp.async copies between multiples of 16 bytes");
  if (!in_shared_memory(target, 16)) fail("cp.async writes to shared memory");
  if (in_shared_memory(source, 1)) fail("cp.async reads the device's memory");
  if (bytes < 0 || bytes > 16) fail("cp.async copies at most 16 bytes");
  Machine& m = machine();
  const Copy copy{target, source, bytes};
  if (m.draw(2) == 0)
    perform(copy);
  else
    m.current->copies.push_back(copy);
}

void commit_copies() {
  Thread& self = *machine().current;
  self.groups.push_back(std::move(self.copies));
  self.copies.clear();
}

void wait_copies(int groups_left) {
  Thread& self = *machine().current;
  while (static_cast<int>(self.groups.size()) > groups_left) {
    for (const Copy& copy : self.groups.front()) perform(copy);
    self.groups.pop_front();
  }
}

}  // namespace tessera::grid
