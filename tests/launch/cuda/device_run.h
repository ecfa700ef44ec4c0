// Small training runs on the emulated device (support/grid), whose memory the host cannot touch, and the same on the
// CPU.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "parallel/comm/device_link.h"
#include "tensor/context/context.h"
#include "tests/support/grid/streams.h"

namespace tessera {
class RunConfig;
enum ModelConfig_Family : int;
enum RunSection_ComputeDtype : int;
}  // namespace tessera

namespace tessera::testing_device {

constexpr int64_t kSteps = 3, kGlobalBatch = 2, kSequence = 32;

RunConfig small_config(ModelConfig_Family family, RunSection_ComputeDtype dtype);

std::vector<double> on_host(const Context& context, const ConstTensor& x);

// What rank 0 sees; tensors are those that one rank holds whole.
struct Curve {
  std::vector<double> losses, norms;
  double evaluation = 0;
  std::map<std::string, std::vector<double>> weights, gradients, state;  // before, of and after the steps
};

// |a - b| / |b|.
double distance(const std::vector<double>& a, const std::vector<double>& b);

// Tokens are random: only samples that come again can be learnt.
enum class Samples : uint8_t { Fresh, TheSame };

// kSteps steps and an evaluation on ranks that are threads.
Curve train(RunConfig config, int ranks = 1, DeviceTransport transport = DeviceTransport::Staged,
            DeviceSums sums = DeviceSums::Fast, Samples samples = Samples::Fresh);
// The same on one rank and the CPU.
Curve on_cpu(RunConfig config);

// What one rank's step number `step` asks of its streams, after those before it.
grid::StreamCalls calls_of_step(RunConfig config, int64_t microbatches, int64_t step);

}  // namespace tessera::testing_device
