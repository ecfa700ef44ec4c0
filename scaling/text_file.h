// Protobuf text format in files, and files that are replaced whole.
#pragma once

#include <string>

namespace google::protobuf {
class Message;
}

namespace tessera {

// Overwrites message with what the text says. Returns the first mistake, as "PATH:LINE:COLUMN: what"; "" when there is
// none.
std::string parse_message(const std::string& text, const std::string& path, google::protobuf::Message& message);
// Lists of numbers on one line.
std::string message_text(const google::protobuf::Message& message);

// Throws IoError when there is no such file; `hint` says what there could be.
std::string read_file(const std::string& path, const std::string& hint = "");

// Writes beside it, synchronises, and renames: a reader sees the old text or the new one. Throws IoError.
void replace_file(const std::string& path, const std::string& text);

}  // namespace tessera
