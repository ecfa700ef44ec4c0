#include "scaling/hardware.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

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
  constexpr double kMost = 1e30;
  const auto& schema = *HardwareConfig::descriptor();
  for (int i = 0; i < schema.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *schema.field(i);
    if (field.cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE ||
        !hardware.GetReflection()->HasField(hardware, &field))
      continue;
    const double value = hardware.GetReflection()->GetDouble(hardware, &field);
    if (!(value > 0 && value <= kMost))
      throw UsageError(fmt::format("{}: {} = {}: must be above 0 and at most {:g}", path, field.name(), value, kMost));
  }
}

void read_hardware(const std::string& path, HardwareConfig& hardware) {
  parse_hardware(read_file(path, "configs/hardware/ has descriptions"), path, hardware);
}

}  // namespace tessera
