#include "launch/config/field.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <charconv>

#include "launch/config/suggest.h"
#include "tensor/check.h"

namespace tessera {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

namespace {

// "train[1]" -> "train" and 1; "train" -> "train" and -1.
struct Part {
  std::string name;
  int index = -1;
};

Part parse_part(const std::string& text, const std::string& path) {
  const size_t open = text.find('[');
  if (open == std::string::npos) return {text, -1};
  Part part{text.substr(0, open), -1};
  const char* first = text.data() + open + 1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(first, last, part.index);
  if (error != std::errc() || end + 1 != last || *end != ']' || part.index < 0)
    throw UsageError(fmt::format("{}: \"{}\" is not a field or an element of one; write e.g. train[0]", path, text));
  return part;
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

bool is_message(const FieldDescriptor& field) { return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE; }

// Paths of the fields called `name` anywhere below a type.
void paths_of(const Descriptor& type, const std::string& prefix, const std::string& name,
              std::vector<std::string>& found) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (field.name() == name) found.push_back(path);
    if (is_message(field)) paths_of(*field.message_type(), path + (field.is_repeated() ? "[0]." : "."), name, found);
  }
}

void visit_scalars(Message& message, const std::string& prefix, const Visit& visit) {
  const Descriptor& type = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (field.is_repeated()) {
      for (int j = 0; j < reflection.FieldSize(message, &field); ++j) {
        const std::string element = fmt::format("{}[{}]", path, j);
        if (is_message(field))
          visit_scalars(*reflection.MutableRepeatedMessage(&message, &field, j), element + ".", visit);
        else
          visit(element, {&message, &field, j});
      }
    } else if (is_message(field)) {
      visit_scalars(*reflection.MutableMessage(&message, &field), path + ".", visit);
    } else {
      visit(path, {&message, &field, -1});
    }
  }
}

}  // namespace

std::vector<std::string> field_names(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

std::vector<std::string> value_names(const FieldDescriptor& field) {
  std::vector<std::string> names;
  for (int i = 0; i < field.enum_type()->value_count(); ++i) names.push_back(field.enum_type()->value(i)->name());
  return names;
}

std::string suggest_field(const Descriptor& root, const Descriptor& type, const std::string& name) {
  std::vector<std::string> elsewhere;
  paths_of(root, "", name, elsewhere);
  if (!elsewhere.empty()) return did_you_mean(name, elsewhere);
  return did_you_mean(name, field_names(type));
}

FieldRef find_field(Message& root, const std::string& path) {
  Message* message = &root;
  const std::vector<std::string> parts = split(path);
  std::string so_far;
  for (size_t i = 0;; ++i) {
    const Part part = parse_part(parts[i], path);
    const FieldDescriptor* field = message->GetDescriptor()->FindFieldByName(part.name);
    if (field == nullptr) {
      throw UsageError(fmt::format("{}: {} no field \"{}\"; {}", path,
                                   so_far.empty() ? "a config has" : "\"" + so_far + "\" has", part.name,
                                   suggest_field(*root.GetDescriptor(), *message->GetDescriptor(), part.name)));
    }
    so_far += (so_far.empty() ? "" : ".") + parts[i];
    const auto& reflection = *message->GetReflection();
    if (part.index >= 0) {
      if (!field->is_repeated()) throw UsageError(fmt::format("{}: \"{}\" is a single value", path, part.name));
      if (const int size = reflection.FieldSize(*message, field); part.index >= size)
        throw UsageError(
            fmt::format("{}: there are {} of \"{}\", counted from 0; add one with +=", path, size, part.name));
    }
    if (i + 1 == parts.size()) return {message, field, part.index};
    if (!is_message(*field))
      throw UsageError(fmt::format("{}: \"{}\" is a value, and has no fields of its own", path, so_far));
    if (field->is_repeated() && part.index < 0)
      throw UsageError(fmt::format("{}: \"{}\" is a list; say which element, e.g. {}[0]", path, so_far, so_far));
    message = part.index >= 0 ? reflection.MutableRepeatedMessage(message, field, part.index)
                              : reflection.MutableMessage(message, field);
  }
}

void for_each_scalar(Message& root, const Visit& visit) { visit_scalars(root, "", visit); }

std::string value_text(const FieldRef& ref) {
  const auto& reflection = *ref.message->GetReflection();
  if (ref.field->cpp_type() == FieldDescriptor::CPPTYPE_STRING)
    return ref.index < 0 ? reflection.GetString(*ref.message, ref.field)
                         : reflection.GetRepeatedString(*ref.message, ref.field, ref.index);
  std::string text;
  TextFormat::PrintFieldValueToString(*ref.message, ref.field, ref.index, &text);
  return text;
}

bool is_set(const FieldRef& ref) {
  return ref.index >= 0 || ref.message->GetReflection()->HasField(*ref.message, ref.field);
}

}  // namespace tessera
