#include "launch/config/override.h"

#include <fmt/format.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <vector>

#include "launch/config/field.h"
#include "launch/config/suggest.h"
#include "launch/run.pb.h"
#include "scaling/first_mistake.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

struct Assignment {
  std::string path;
  std::string value;
  bool append = false;
};

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\n"), last = text.find_last_not_of(" \t\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

Assignment split(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError(fmt::format("\"{}\" is not path=value, e.g. model.hidden_size=512", text));
  const bool append = text[equals - 1] == '+';
  return {trimmed(text.substr(0, equals - append)), trimmed(text.substr(equals + 1)), append};
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

bool same_letters(const std::string& a, const std::string& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// The value of one scalar in text format.
std::string scalar_text(const FieldDescriptor& field, const std::string& value) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: {
      const bool has_quotes =
          value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front();
      return has_quotes ? value : quoted(value);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      for (const char* name : {"true", "false"}) {
        if (same_letters(value, name)) return name;
      }
      return value;
    case FieldDescriptor::CPPTYPE_ENUM:
      for (const std::string& name : value_names(field)) {
        if (same_letters(value, name)) return name;
      }
      throw UsageError(fmt::format("unknown value \"{}\"; {}", value, did_you_mean(value, value_names(field))));
    default:
      return value;
  }
}

// What a value of this field may look like, for the end of an error message.
const char* wanted(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
      return "an integer";
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "an integer of at least 0";
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "a message in text format, e.g. {path: \"shards\" weight: 2}";
    default:
      return "text";
  }
}

// The whole assignment in text format: "name: value".
std::string field_text(const FieldDescriptor& field, const std::string& value) {
  if (value.empty() && field.is_repeated()) return "";  // data.validation= empties the list
  const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  const bool in_format =
      !value.empty() && ((is_message && value.front() == '{') || (field.is_repeated() && value.front() == '['));
  if (in_format) return field.name() + ": " + value;
  if (!is_message) return field.name() + ": " + scalar_text(field, value);
  if (field.message_type()->FindFieldByName("path") == nullptr)
    throw UsageError(fmt::format("\"{}\" is a section; set one of its fields, or all of it as {{...}}", field.name()));
  return field.name() + ": {path: " + quoted(value) + "}";
}

void assign(const Assignment& assignment, Message& config) {
  const FieldRef ref = find_field(config, assignment.path);
  if (assignment.append && !ref.field->is_repeated())
    throw UsageError(
        fmt::format("{}: += is for lists; write {}={}", assignment.path, assignment.path, assignment.value));
  if (ref.index >= 0)
    throw UsageError(fmt::format("{}: set one of the element's fields, or the whole list", assignment.path));
  const std::string text = field_text(*ref.field, assignment.value);
  // Parsed on its own, so that a value cannot bring other fields with it.
  const std::unique_ptr<Message> parsed(ref.message->New());
  FirstMistake error;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  bool good = parser.ParseFromString(text, parsed.get());
  std::vector<const FieldDescriptor*> fields;
  parsed->GetReflection()->ListFields(*parsed, &fields);
  if (good && fields.size() > 1) {
    good = false;
    error.text = "it sets " + fields[0]->name() + " and " + fields[1]->name();
  }
  if (!good)
    throw UsageError(
        fmt::format("{} = {}: must be {} ({})", assignment.path, assignment.value, wanted(*ref.field), error.text));
  if (!assignment.append) ref.message->GetReflection()->ClearField(ref.message, ref.field);
  ref.message->MergeFrom(*parsed);
}

// Gives `where` as origin to the field, and to all that is set in it and has none.
void note_origin(RunConfig config, const std::string& path, const std::string& where, Origins& origins) {
  origins.set(path, where);
  const auto set_if_new = [&](const std::string& inner) {
    if (origins.of(inner).empty()) origins.set(inner, where);
  };
  const FieldRef ref = find_field(config, path);
  if (ref.field->is_repeated()) {
    for (int i = 0; i < ref.message->GetReflection()->FieldSize(*ref.message, ref.field); ++i)
      set_if_new(fmt::format("{}[{}]", path, i));
  }
  for_each_scalar(config, [&](const std::string& inner, const FieldRef& value) {
    const bool inside = inner.starts_with(path) && (inner[path.size()] == '.' || inner[path.size()] == '[');
    if (inside && is_set(value)) set_if_new(inner);
  });
}

}  // namespace

void apply_override(const std::string& text, RunConfig& config, Origins& origins, Problems& problems) {
  const std::string where = "--set " + text;
  try {
    const Assignment assignment = split(text);
    RunConfig changed = config;
    assign(assignment, changed);
    config.Swap(&changed);
    if (!assignment.append) origins.erase(assignment.path);
    note_origin(config, assignment.path, where, origins);
  } catch (const UsageError& error) {
    problems.add(where + ": " + error.what());
  }
}

}  // namespace tessera
