#include "launch/process/version.h"

#include <fmt/format.h>
#include <google/protobuf/stubs/common.h>
#include <hdf5.h>
#include <mpi.h>
#include <oneapi/dnnl/dnnl.h>

#include <array>
#include <string_view>

namespace tessera {
namespace {

// "Open MPI v4.1.4, package: Debian ..." or "MPICH Version: 4.0\nMPICH Release date: ...": the first statement.
std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int size = 0;
  MPI_Get_library_version(text.data(), &size);
  const std::string_view whole(text.data());
  return std::string(whole.substr(0, whole.find_first_of(",\n")));
}

std::string hdf5_version() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace

std::string program_version() { return TESSERA_VERSION; }

std::vector<std::pair<std::string, std::string>> versions() {
  const dnnl_version_t* dnnl = ::dnnl_version();
  return {{"tessera", program_version()},
          {"mpi", mpi_version()},
          {"onednn", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch)},
          {"hdf5", hdf5_version()},
          // protobuf has no call that tells its library's version, but refuses at start to run with another.
          {"protobuf", google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)}};
}

}  // namespace tessera
