#include "checkpoint/format/view.h"

#include <sys/wait.h>

#include <cstdlib>

#include "tests/checkpoint/rig.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

// Exit status of tests/checkpoint/h5py_reads.py.
int h5py_reads(const std::string& arguments) {
  const std::string command =
      std::string("/usr/bin/python3 ") + testing::source_dir() + "/tests/checkpoint/h5py_reads.py ";
  const int status = std::system((command + arguments).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// One rank of five holds no row of the norm's three.
TEST(View, H5pyReadsWholeTensorsAndShards) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 5});
  const std::string expected = directory + "/expected";
  fs::create_directories(expected);
  RankState whole(small_tensors(), {}, 0);
  whole.fill(1);
  for (const StateSlice& slice : whole.state.slices) {
    std::string name = slice.name;
    std::replace(name.begin(), name.end(), '/', '+');
    PosixStorage().write_file(join(expected, name + ".bin"), {static_cast<const std::byte*>(slice.data.data()),
                                                              static_cast<size_t>(slice.data.bytes())});
  }
  const std::string checkpoint = directory + "/step-00000001";
  const int status = h5py_reads(checkpoint + " " + expected);
  if (status == 77 || status == 127) GTEST_SKIP() << "needs /usr/bin/python3 with h5py (Debian: python3-h5py)";
  EXPECT_EQ(status, 0);
  fs::remove(checkpoint + "/shard-00001.h5");
  EXPECT_EQ(h5py_reads(checkpoint + " " + expected + " shard-00001.h5"), 0);
  EXPECT_NE(h5py_reads(checkpoint + " " + expected), 0) << "the script notices what is missing";
}

TEST(View, EveryDtypeAndTheEmptyTensorHaveAPlace) {
  std::vector<ViewTensor> tensors;
  for (const DType dtype : {DType::F64, DType::F32, DType::BF16, DType::I32, DType::U16, DType::U32}) {
    tensors.push_back({std::string("group/") + name(dtype), {6, 2}, dtype, {{{0, 4}, "a.h5"}, {{4, 6}, "b.h5"}}});
  }
  tensors.push_back({"hollow", {0, 2}, DType::F32, {}});
  const std::string bytes = make_view(tensors);
  EXPECT_EQ(bytes, make_view(tensors));
  EXPECT_EQ(bytes.substr(1, 3), "HDF");
}

}  // namespace
}  // namespace tessera
