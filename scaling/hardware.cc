#include "scaling/hardware.h"

#include <fmt/format.h>

#include <cmath>

#include "scaling/hardware.pb.h"
#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
void parse_hardware(const std::string& text, const std::string& path, HardwareConfig& hardware) {
  if (const std::string problem = parse_message(text, path, hardware); !problem.empty()) throw UsageError(problem);
  if (!(hardware.bf16_flops() > 0 && std::isfinite(hardware.bf16_flops())))
    throw UsageError(fmt::format("{}: bf16_flops = {}: must be a positive number, the dense peak of one device", path,
                                 hardware.bf16_flops()));
}

void read_hardware(const std::string& path, HardwareConfig& hardware) {
  parse_hardware(read_file(path, "configs/hardware/ has descriptions"), path, hardware);
}

}  // namespace tessera
