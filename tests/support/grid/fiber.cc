#include "tests/support/grid/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// void tessera_switch_stack(void** save, void* load): pushes the registers that a call keeps, changes stacks, pops.
asm(R"(
.text
.globl tessera_switch_stack
.type tessera_switch_stack, @function
tessera_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_switch_stack, .-tessera_switch_stack
)");
extern "C" void tessera_switch_stack(void** save, void* load);

namespace tessera::grid {
namespace {

constexpr size_t kGuardBytes = 4096;

// The stack outside all fibers, while one runs.
void* outside_top = nullptr;
Fiber* running = nullptr;
#if defined(__SANITIZE_ADDRESS__)
void* outside_asan = nullptr;
const void* outside_bottom = nullptr;
size_t outside_bytes = 0;
#endif
#if defined(__SANITIZE_THREAD__)
void* outside_tsan = nullptr;
#endif

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);  // what overflows the stack ends the process
  stack_ = static_cast<char*>(memory) + kGuardBytes;
#if defined(__SANITIZE_THREAD__)
  tsan_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(tsan_);
#endif
}

void Fiber::prepare(void (*entry)()) {
  entry_ = entry;
#if defined(__SANITIZE_ADDRESS__)
  // What an abandoned run of this stack left poisoned.
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // start()'s return address; keeps the alignment that a call makes
  *--top = reinterpret_cast<void*>(&Fiber::start);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  top_ = top;
  asan_ = nullptr;
}

void Fiber::start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &outside_bottom, &outside_bytes);
#endif
  running->entry_();
  std::abort();  // entry returned
}

void Fiber::resume() {
  running = this;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&outside_asan, stack_, kStackBytes);
#endif
#if defined(__SANITIZE_THREAD__)
  outside_tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
  tessera_switch_stack(&outside_top, top_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(outside_asan, nullptr, nullptr);
#endif
  running = nullptr;
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&asan_, outside_bottom, outside_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(outside_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  tessera_switch_stack(&top_, outside_top);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(asan_, nullptr, nullptr);
#endif
}

void Fiber::leave() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, outside_bottom, outside_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(outside_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  tessera_switch_stack(&top_, outside_top);
  std::abort();  // a fiber that left was resumed
}

#if defined(__SANITIZE_THREAD__)
void release(void* at) { __tsan_release(at); }
void acquire(void* at) { __tsan_acquire(at); }
#else
void release(void*) {}
void acquire(void*) {}
#endif

}  // namespace tessera::grid
