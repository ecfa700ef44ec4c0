// What is refused of NCCL's library, and what is said then.
#include "parallel/comm/nccl_library.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "parallel/comm/comm_nccl.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/comm/device_link.h"
#include "tensor/check.h"

extern "C" void fake_nccl_version(int version);  // tests/support/grid/nccl.cc

namespace tessera {
namespace {

template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

constexpr int kOwn = NCCL_VERSION_CODE / 100 * 100;

TEST(NcclLibrary, IsNotTooOld) {
  EXPECT_EQ(refusal([] { nccl::require_new_enough(22703, ""); }), "");
  EXPECT_EQ(refusal([] { nccl::require_new_enough(kOwn + 10100, ""); }), "");
  EXPECT_EQ(refusal([] { nccl::require_new_enough(22605, "/usr/lib/libnccl.so.2"); }),
            "/usr/lib/libnccl.so.2 is NCCL 2.26.5, which is too old: install NCCL 2.27 or later, or put its folder on "
            "LD_LIBRARY_PATH, or set parallel.gpu_transport = staged (through host memory: slow)");
}

TEST(NcclLibrary, IsTheSameOnEveryRank) {
  constexpr char kRemedy[] =
      ": install the same one on every host, or let LD_LIBRARY_PATH name the same one for every rank, or set "
      "parallel.gpu_transport = staged (through host memory: slow)";
  EXPECT_EQ(refusal([] { nccl::require_same({22809, 22809}); }), "");
  EXPECT_EQ(refusal([] { nccl::require_same({22809}); }), "");
  EXPECT_EQ(refusal([] {
              nccl::require_same({22809, 22809, 22907, 22803});
            }),
            std::string("NCCL is 2.29.7 on rank 2 and 2.28.9 on rank 0 (2 of 4 ranks have 2.28.9)") + kRemedy);
  EXPECT_EQ(refusal([] {
              nccl::require_same({22803, 22809, 22809});
            }),
            std::string("NCCL is 2.28.3 on rank 0 and 2.28.9 on rank 1 (2 of 3 ranks have 2.28.9)") + kRemedy);
  EXPECT_EQ(refusal([] {
              nccl::require_same({22803, 22809});
            }),
            std::string("NCCL is 2.28.3 on rank 0 and 2.28.9 on rank 1 (1 of 2 ranks have 2.28.9)") + kRemedy);
}

// Every rank says so, without a call that would wait for the others.
TEST(NcclLibrary, IsComparedBeforeACommunicatorIsMade) {
  run_ranks(3, [](Comm& world) {
    fake_nccl_version(world.rank() == 1 ? kOwn + 103 : kOwn + 101);
    const Context context({.device = Device::Cuda});
    const std::string said = refusal([&] { make_nccl_exchange(world, context, DeviceLink::kNoDeadline); });
    EXPECT_NE(said.find(fmt::format("NCCL is {} on rank 1 and {} on rank 0 (2 of 3 ranks",
                                    nccl::version_text(kOwn + 103), nccl::version_text(kOwn + 101))),
              std::string::npos)
        << said;
  });
}

}  // namespace
}  // namespace tessera
