#include "scaling/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

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

std::string parse_message(const std::string& text, const std::string& path, google::protobuf::Message& message) {
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  return parser.ParseFromString(text, &message) ? "" : path + ":" + error.text;
}

std::string message_text(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  printer.SetUseShortRepeatedPrimitives(true);
  std::string text;
  TESSERA_CHECK(printer.PrintToString(message, &text), "a message can be printed");
  return text;
}

std::string read_file(const std::string& path, const std::string& hint) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError(fmt::format("{}: cannot be opened{}", path, hint.empty() ? "" : "; " + hint));
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) throw IoError(path + ": cannot be read");
  return text.str();
}

void replace_file(const std::string& path, const std::string& text) {
  const std::string beside = path + ".tmp";
  const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool written =
      file >= 0 && ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (!written || ::rename(beside.c_str(), path.c_str()) != 0)
    throw IoError(fmt::format("cannot write {}: {}", path, std::strerror(written ? errno : error)));
}

}  // namespace tessera
