#include "scaling/hardware.h"

#include <fmt/format.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "scaling/hardware.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) text = fmt::format("{}:{}: {}", line + 1, column + 1, message);
  }
  std::string text;
};

}  // namespace

void parse_hardware(const std::string& text, const std::string& path, HardwareConfig& hardware) {
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &hardware)) throw UsageError(path + ":" + error.text);
  if (!(hardware.bf16_flops() > 0 && std::isfinite(hardware.bf16_flops())))
    throw UsageError(fmt::format("{}: bf16_flops = {}: must be a positive number, the dense peak of one device", path,
                                 hardware.bf16_flops()));
}

void read_hardware(const std::string& path, HardwareConfig& hardware) {
  std::ifstream file(path);
  if (!file) throw IoError(path + ": cannot be opened; configs/hardware/ has descriptions");
  std::ostringstream text;
  text << file.rdbuf();
  parse_hardware(text.str(), path, hardware);
}

}  // namespace tessera
