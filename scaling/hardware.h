// Hardware descriptions: configs/hardware/NAME.textproto.
#pragma once

#include <string>

namespace tessera {

class HardwareConfig;  // scaling/hardware.proto

// Overwrites hardware with what the file says. Throws UsageError, with line and column, for text that is no
// description, and when bf16_flops is missing or not positive.
void parse_hardware(const std::string& text, const std::string& path, HardwareConfig& hardware);
// Throws IoError when there is no such file.
void read_hardware(const std::string& path, HardwareConfig& hardware);

}  // namespace tessera
