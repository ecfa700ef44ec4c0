// Stacks that take turns on one OS thread: what the grid emulator runs a GPU thread on. x86-64, System V ABI.
//
// Each switch is announced to AddressSanitizer (which would take the other stack's frames for an overflow) and to
// ThreadSanitizer (which then sees each fiber as a thread of its own, and finds races between them).
#pragma once

#include <cstddef>

namespace tessera::grid {

class Fiber {
 public:
  static constexpr size_t kStackBytes = size_t{256} << 10;  // pages are touched on use

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls entry() on a fresh stack. entry must not return: it ends in leave().
  void prepare(void (*entry)());
  // From outside any fiber: runs this one until it calls suspend() or leave().
  void resume();
  // From the running fiber: back to where resume() was called.
  void suspend();
  [[noreturn]] void leave();

 private:
  static void start();

  char* stack_ = nullptr;
  void* top_ = nullptr;  // saved stack pointer while not running
  void (*entry_)() = nullptr;
  void* asan_ = nullptr;
  void* tsan_ = nullptr;
};

// For ThreadSanitizer: all that was done before release(at) happened before what comes after acquire(at).
void release(void* at);
void acquire(void* at);

}  // namespace tessera::grid
