// A grid of GPU threads on one OS thread: runs a kernel's own source, compiled by the host compiler.
//
// Blocks run one after another, the threads of a block as fibers that take turns at barriers and warp operations, in an
// order drawn anew at each step: what a kernel forgets to wait for differs from seed to seed (and is a data race to
// ThreadSanitizer). Every block starts with its shared memory full of NaN. Copies by cp.async land
// at once or when they are waited for, as it falls. A deadlock, a warp operation that not all lanes of its mask reach,
// a barrier left by an exited thread: InternalError, saying which.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "tensor/context/threads.h"

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned int width, unsigned int height = 1, unsigned int depth = 1) : x(width), y(height), z(depth) {}
};

// Of the running thread, under CUDA's names.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tessera::grid {

constexpr int64_t kSharedMemory = int64_t{227} << 10;  // bytes a block may have: compute capability 9.0
constexpr int kLanes = 32;

// Calls body() once for every thread of the grid. name: for messages.
void run(const std::string& name, dim3 blocks, dim3 threads, int64_t shared_bytes, FunctionRef<void()> body);

// The order of turns from here on; 0 is a seed like others.
void set_seed(uint64_t seed);
// Blocks and threads run since the program began.
struct Count {
  int64_t blocks, threads;
};
Count count();
// How often each kernel was started since the program began, by the name that launch() was given.
std::map<std::string, int64_t> starts();

// --- What the running thread may call.

void* shared_memory();
// Static shared memory, once for each variable: filled like the dynamic one from here on.
void declare_shared(void* at, int64_t bytes);

// What ldmatrix demands of the address of a row of a matrix: shared memory, at a multiple of 16.
void check_matrix_row(const void* row);

// Waits until `threads` threads of the block have arrived at barrier `id` (0 to 15, as on the device).
void barrier(int id, int threads);

// Waits until all lanes of `mask` have come with the same `operation`, which is then called once with what each lane
// brought (null for lanes outside the mask).
using WarpOperation = void (*)(const std::array<void*, kLanes>& lanes);
void warp(uint32_t mask, WarpOperation operation, void* argument);

int lane();

// 16 bytes to the device's memory: not to the block's shared memory, and at a multiple of 16.
void store_quad(void* to, const std::array<uint32_t, 4>& words);

// Copies `bytes` from `source` to shared memory and fills up to 16 with zeros, now or when waited for.
void copy_async(void* target, const void* source, int bytes);
void commit_copies();
void wait_copies(int groups_left);

}  // namespace tessera::grid
