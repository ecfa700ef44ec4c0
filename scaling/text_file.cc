#include "scaling/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "scaling/first_mistake.h"
#include "tensor/check.h"

namespace tessera {
std::string parse_message(const std::string& text, const std::string& path, google::protobuf::Message& message) {
  google::protobuf::TextFormat::Parser parser;
  FirstMistake error;
  parser.RecordErrorsTo(&error);
  return parser.ParseFromString(text, &message) ? "" : path + ":" + error.place + ": " + error.text;
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
  size_t done = 0;
  while (file >= 0 && done < text.size()) {
    const ssize_t n = ::write(file, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) break;
    if (n > 0) done += static_cast<size_t>(n);
  }
  const bool written = file >= 0 && done == text.size() && ::fsync(file) == 0;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (written && ::rename(beside.c_str(), path.c_str()) == 0) return;
  const int reason = written ? errno : error;
  ::unlink(beside.c_str());  // nothing half-written stays
  throw IoError(fmt::format("cannot write {}: {}", path, std::strerror(reason)));
}

}  // namespace tessera
