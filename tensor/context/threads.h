// The one way in which Tessera's own kernels use threads (OpenMP underneath, shared with oneDNN's pool).
//
// A rank has a fixed number of threads. Splits are static and depend only on the count, so results are bitwise equal
// from run to run with the same number of threads. Bodies must not throw.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace tessera {

class Context;

// A reference to a callable that outlives the call: no allocation, one indirect call.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>) FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(args...);
        }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

// Calls body(begin, end) on contiguous parts of [0, count), one a thread; parts are multiples of `grain` (but the
// last). Runs inline when there is only one part. body sees every index exactly once.
void parallel_for(const Context& context, int64_t count, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

// Calls task(index, worker) for every index in [0, count), handed out one by one as workers become free, in index
// order (put the largest first). worker is in [0, threads): use it to pick scratch memory. Each task must write its own
// outputs, so that the result does not depend on who ran it.
void parallel_tasks(const Context& context, int64_t count, FunctionRef<void(int64_t, int)> task);

// Cores that this process may use: the affinity mask, bounded by the control group's CPU limit.
int usable_cores();

}  // namespace tessera
