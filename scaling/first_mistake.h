// What protobuf's text parser says first about a text, and where: what comes after follows from it.
#pragma once

#include <google/protobuf/io/tokenizer.h>

#include <string>

namespace tessera {

class FirstMistake : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) place = std::to_string(line + 1) + ":" + std::to_string(column + 1), text = message;
  }
  // A warning is of a text that means less than it seems to.
  void AddWarning(int line, int column, const std::string& message) override { AddError(line, column, message); }

  std::string text;   // empty when nothing was wrong
  std::string place;  // "LINE:COLUMN", from 1
};

}  // namespace tessera
