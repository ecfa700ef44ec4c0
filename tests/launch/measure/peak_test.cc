#include "launch/measure/peak.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "scaling/hardware.h"
#include "scaling/hardware.pb.h"
#include "scaling/training_record.pb.h"
#include "tests/support/program.h"

namespace tessera::testing {
namespace {

TEST(Peak, DataSheetsAreThoseOfTheHardwareDescriptions) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() + "/configs/hardware")) {
    HardwareConfig hardware;
    read_hardware(entry.path(), hardware);
    EXPECT_EQ(data_sheet_flops("NVIDIA " + hardware.name()), hardware.bf16_flops()) << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 6);
  EXPECT_EQ(data_sheet_flops("NVIDIA H100 80GB HBM3"), 9.89e14);
  EXPECT_EQ(data_sheet_flops("grid emulator"), 0);
}

TEST(Peak, IsUsedAgainOnTheSameMachineAlone) {
  Peak peak = peak_of("NVIDIA H200", 4, 1, DType::BF16);
  EXPECT_EQ(peak.data_sheet, 4 * 9.89e14);
  peak.measured = 3e15;
  TrainingRecord record;
  write_peak(peak, record);
  Peak same = peak_of("NVIDIA H200", 4, 1, DType::BF16);
  EXPECT_TRUE(reuse_peak(record, same));
  EXPECT_EQ(same.measured, 3e15);
  for (Peak other : {peak_of("NVIDIA H100", 4, 1, DType::BF16), peak_of("NVIDIA H200", 8, 1, DType::BF16),
                     peak_of("NVIDIA H200", 4, 1, DType::F32)}) {
    EXPECT_FALSE(reuse_peak(record, other)) << other.machine;
    EXPECT_EQ(other.measured, 0);
  }
  EXPECT_FALSE(reuse_peak(TrainingRecord(), same));
  EXPECT_EQ(peak_text(peak, PeakOrigin::Recorded),
            "MFU is relative to 3.00 PFLOP/s, the matrix products' rate in the run's record (NVIDIA H200, 4 x 1 "
            "threads, BF16); the data sheet says 3.96 PFLOP/s");
}

}  // namespace
}  // namespace tessera::testing
