// The emulated device: tensor/cuda's memory and devices on the host.
#include "tensor/cuda/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <string>

#include "tensor/check.h"
#include "tensor/cuda/memory.h"
#include "tests/support/grid/grid.h"
#include "tests/support/grid/memory.h"
#include "tests/support/grid/streams.h"

namespace tessera {
namespace {

constexpr char kDeviceName[] = "grid emulator";

struct DeviceHeap {
  static constexpr size_t kBytes = size_t{4} << 30;

  DeviceHeap() {
    void* range = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TESSERA_CHECK(range != MAP_FAILED, "addresses for the emulated device's memory");
    base = static_cast<char*>(range);
    free[0] = kBytes;
    const char* text = std::getenv("TESSERA_GRID_BYTES");
    set_limit(text == nullptr ? 0 : std::strtoull(text, nullptr, 10));
    struct sigaction action {};
    action.sa_sigaction = [](int, siginfo_t* info, void*) { heap().explain(info->si_addr); };
    action.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
  }

  static DeviceHeap& heap() {
    static DeviceHeap instance;
    return instance;
  }

  // The fault comes again when the handler returns, and then ends the process.
  void explain(const void* address) const {
    const char* at = static_cast<const char*>(address);
    if (at < base || at >= base + kBytes) return;
    constexpr char kText[] = "host code touches device memory\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  }

  void* allocate(size_t bytes, const std::string& what) {
    constexpr size_t kPage = 4096;
    const size_t need = (bytes + kPage - 1) / kPage * kPage + kPage;  // and a page between it and the next
    const std::lock_guard lock(mutex);
    for (auto& [begin, size] : free) {
      if (size < need || held + bytes > limit) continue;
      const size_t at = begin, rest = size - need;
      free.erase(at);
      if (rest > 0) free[at + need] = rest;
      taken[at] = {need, bytes};
      held += bytes;
      return base + at;
    }
    cuda::refuse_allocation(static_cast<int64_t>(bytes), what,
                            {.ordinal = 0,
                             .name = kDeviceName,
                             .free = static_cast<int64_t>(limit - std::min(held, limit)),
                             .total = static_cast<int64_t>(limit)});
  }

  void set_limit(size_t bytes) {
    const std::lock_guard lock(mutex);
    limit = bytes == 0 ? kBytes : bytes;
  }

  void release(void* data) {
    const std::lock_guard lock(mutex);
    const auto found = taken.find(static_cast<size_t>(static_cast<char*>(data) - base));
    if (found == taken.end()) std::abort();
    held -= found->second.asked;
    madvise(data, found->second.size, MADV_DONTNEED);  // zeros again
    auto place = free.emplace(found->first, found->second.size).first;
    taken.erase(found);
    const auto join = [&](auto first, auto second) {
      if (first->first + first->second != second->first) return false;
      first->second += second->second;
      free.erase(second);
      return true;
    };
    if (const auto next = std::next(place); next != free.end()) join(place, next);
    if (place != free.begin()) join(std::prev(place), place);
  }

  void open(bool more) {
    const std::lock_guard lock(mutex);
    accesses += more ? 1 : -1;
    if (accesses == (more ? 1 : 0)) mprotect(base, kBytes, more ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

  std::mutex mutex;
  char* base = nullptr;
  int accesses = 0;
  size_t held = 0, limit = kBytes;  // as asked for
  struct Piece {
    size_t size, asked;
  };
  std::map<size_t, size_t> free;  // begin and size
  std::map<size_t, Piece> taken;  // begin
};

struct PinnedMemory {
  std::mutex mutex;
  std::map<const char*, int64_t> pieces;  // begin, bytes
};

PinnedMemory& pinned_memory() {
  static PinnedMemory instance;
  return instance;
}

}  // namespace

namespace grid {

DeviceAccess::DeviceAccess() { DeviceHeap::heap().open(true); }
DeviceAccess::~DeviceAccess() { DeviceHeap::heap().open(false); }

int64_t device_bytes() {
  DeviceHeap& heap = DeviceHeap::heap();
  const std::lock_guard lock(heap.mutex);
  return static_cast<int64_t>(heap.held);
}

bool is_pinned(const void* host) {
  PinnedMemory& pinned = pinned_memory();
  const std::lock_guard lock(pinned.mutex);
  const auto after = pinned.pieces.upper_bound(static_cast<const char*>(host));
  if (after == pinned.pieces.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return static_cast<const char*>(host) < begin + bytes;
}

void limit_device_bytes(int64_t bytes) { DeviceHeap::heap().set_limit(static_cast<size_t>(bytes)); }

}  // namespace grid

namespace cuda {

void* allocate_device(int64_t bytes, const std::string& what) {
  grid::require_device();
  return DeviceHeap::heap().allocate(static_cast<size_t>(bytes), what);
}
void free_device(void* data) noexcept {
  grid::finish_own_streams();
  DeviceHeap::heap().release(data);
}
void* allocate_pinned(int64_t bytes, const std::string&) {
  void* data = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  if (data == nullptr) throw std::bad_alloc();
  PinnedMemory& pinned = pinned_memory();
  const std::lock_guard lock(pinned.mutex);
  pinned.pieces[static_cast<const char*>(data)] = bytes;
  return data;
}
void free_pinned(void* data) noexcept {
  grid::finish_own_streams();
  PinnedMemory& pinned = pinned_memory();
  const std::lock_guard lock(pinned.mutex);
  pinned.pieces.erase(static_cast<const char*>(data));
  std::free(data);
}

// One device, or as many as the environment's TESSERA_GRID_GPUS has characters: of each the UUID ends with its own.
std::string all_devices() {
  const char* text = std::getenv("TESSERA_GRID_GPUS");
  return text == nullptr ? "0" : text;
}

Devices find_devices() {
  const int count = static_cast<int>(all_devices().size());
  return {.count = count, .reason = count > 0 ? "" : why_no_device(NoDevice::NoGpu, 0, 0, "")};
}

void enter_device(int) { grid::choose_device(); }

DeviceInfo use_device(int ordinal) {
  grid::choose_device();
  return {.ordinal = ordinal,
          .name = kDeviceName,
          .major = 9,
          .minor = 0,
          .multiprocessors = 2,
          .shared_memory = grid::kSharedMemory,
          .memory = int64_t{1} << 34,
          .uuid = std::string("GPU-grid-") + all_devices().at(static_cast<size_t>(ordinal))};
}

}  // namespace cuda
}  // namespace tessera
