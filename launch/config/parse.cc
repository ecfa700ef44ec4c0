#include "launch/config/parse.h"

#include <fmt/format.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <vector>

#include "launch/config/field.h"
#include "launch/config/suggest.h"
#include "launch/run.pb.h"

namespace tessera {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

// Line and column count from 0, as the parser gives them.
struct Position {
  int line = 0, column = 0;
  auto operator<=>(const Position&) const = default;
};
using Found = std::map<Position, std::string>;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char c : text) {
    if (c == '\n')
      lines.emplace_back();
    else
      lines.back() += c;
  }
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (size_t i = 0; i < lines.size(); ++i) text += (i ? "\n" : "") + lines[i];
  return text;
}

// The enum field of this name somewhere below a type that has no such value.
const FieldDescriptor* find_enum(const Descriptor& type, const std::string& name, const std::string& value) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (const FieldDescriptor* found = find_enum(*field->message_type(), name, value)) return found;
    } else if (field->name() == name && field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM &&
               field->enum_type()->FindValueByName(value) == nullptr) {
      return field;
    }
  }
  return nullptr;
}

// The parser's words in the user's terms, and the position of the word that is wrong: the parser's is that of the word
// after it.
struct Explained {
  Position position;
  std::string message;
};

Explained explain(Position position, const std::string& message, const std::vector<std::string>& lines) {
  const auto back_to = [&](const std::string& word) {
    for (int line = std::min<int>(position.line, static_cast<int>(lines.size()) - 1); line >= 0; --line) {
      const size_t from = line == position.line ? static_cast<size_t>(position.column) : std::string::npos;
      if (const size_t at = lines[line].rfind(word, from); at != std::string::npos)
        return Position{line, static_cast<int>(at)};
    }
    return position;
  };
  static const std::regex unknown_field(R"re(Message type "([\w.]+)" has no field named "([^"]+)"\.)re");
  static const std::regex unknown_value(R"re(Unknown enumeration value of "([^"]+)" for field "(\w+)"\.)re");
  std::smatch match;
  if (std::regex_match(message, match, unknown_field)) {
    const std::string name = match[2];
    const Descriptor* type = DescriptorPool::generated_pool()->FindMessageTypeByName(match[1]);
    const std::string hint = type ? "; " + suggest_field(*RunConfig::descriptor(), *type, name) : "";
    return {back_to(name), fmt::format("unknown field \"{}\"{}", name, hint)};
  }
  if (std::regex_match(message, match, unknown_value)) {
    const std::string value = match[1], name = match[2];
    const FieldDescriptor* field = find_enum(*RunConfig::descriptor(), name, value);
    const std::string hint = field ? "; " + did_you_mean(value, value_names(*field)) : "";
    return {back_to(value), fmt::format("unknown value \"{}\" of {}{}", value, name, hint)};
  }
  static const std::regex not_boolean(R"re(Invalid value for boolean field "(\w+)"\. Value: "([^"]+)"\.)re");
  if (std::regex_match(message, match, not_boolean)) {
    const std::string name = match[1], value = match[2];
    return {back_to(value), fmt::format("unknown value \"{}\" of {}; choose true or false", value, name)};
  }
  static const std::regex field_before(R"re((\w+)\s*:\s*$)re");
  if (position.line < static_cast<int>(lines.size())) {
    const std::string before = lines[position.line].substr(0, position.column);
    if (std::regex_search(before, match, field_before)) return {position, match[1].str() + ": " + message};
  }
  return {position, message};
}

class Collector : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    const Position position = add({std::max(line, 0), std::max(column, 0)}, message);
    if (!first_error) first_error = position;
  }
  void AddWarning(int line, int column, const std::string& message) override {
    add({std::max(line, 0), std::max(column, 0)}, message);
  }

  const std::vector<std::string>* lines = nullptr;
  Found found;
  std::optional<Position> first_error;  // where the parser gave up

 private:
  Position add(Position position, const std::string& message) {
    const Explained explained = explain(position, message, *lines);
    found.emplace(explained.position, explained.message);
    return explained.position;
  }
};

// Whether the parser may go on behind a mistake by leaving out its line: a whole "name: value" and nothing else, with
// the mistake in the value.
bool blank_line(std::string& line, int column) {
  static const std::regex whole_field(R"re(\s*\w+\s*:[^{}\[\]<>"']+)re");
  if (!std::regex_match(line, whole_field) || column <= static_cast<int>(line.find(':'))) return false;
  std::fill(line.begin(), line.end(), ' ');
  return true;
}

void note_origins(const std::string& name, const Message& message, const TextFormat::ParseInfoTree& tree,
                  const std::string& prefix, Origins& origins) {
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;  // the tree aborts on anything else
      const std::string path = prefix + field->name() + (index < 0 ? "" : fmt::format("[{}]", i));
      const auto at = tree.GetLocation(field, index);
      if (at.line >= 0) origins.set(path, fmt::format("{}:{}:{}", name, at.line + 1, at.column + 1));
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      const Message& nested =
          index < 0 ? reflection.GetMessage(message, field) : reflection.GetRepeatedMessage(message, field, i);
      if (const auto* nested_tree = tree.GetTreeForNested(field, index))
        note_origins(name, nested, *nested_tree, path + ".", origins);
    }
  }
}

}  // namespace

void parse_config(const std::string& name, const std::string& text, RunConfig& config, Origins& origins,
                  Problems& problems) {
  const std::vector<std::string> original = lines_of(text);
  std::vector<std::string> lines = original;
  Collector collector;
  collector.lines = &original;
  for (bool again = true; again;) {
    again = false;
    TextFormat::ParseInfoTree tree;
    TextFormat::Parser parser;
    collector.first_error.reset();
    parser.RecordErrorsTo(&collector);
    parser.WriteLocationsTo(&tree);
    parser.AllowUnknownField(true);  // reported as warnings, behind which the parser goes on; here they are errors
    const std::string rest = joined(lines);
    google::protobuf::io::ArrayInputStream input(rest.data(), static_cast<int>(rest.size()));
    config.Clear();
    if (parser.Parse(&input, &config)) {
      note_origins(name, config, tree, "", origins);
    } else if (collector.first_error && collector.first_error->line < static_cast<int>(lines.size())) {
      again = blank_line(lines[collector.first_error->line], collector.first_error->column);
    }
  }
  for (const auto& [at, message] : collector.found)
    problems.add(fmt::format("{}:{}:{}: {}", name, at.line + 1, at.column + 1, message));
}

}  // namespace tessera
