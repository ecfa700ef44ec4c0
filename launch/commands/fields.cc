// tessera fields: every field of a run config, with its default and the values that it takes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <memory>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/config/field.h"
#include "launch/config/ranges.h"
#include "launch/config/suggest.h"
#include "launch/run.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using google::protobuf::FieldDescriptor;

// What the schema states; empty where a field that is not set follows from others.
std::string default_of(const FieldDescriptor& field) {
  if (!field.has_default_value()) return "";
  const auto message = std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(field.containing_type())->New());
  return value_text({message.get(), &field});
}

std::string values_of(const std::string& path, const FieldDescriptor& field) {
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) return fmt::format("{}", fmt::join(value_names(field), ", "));
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL) return "true, false";
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) return "text";
  const Range* range = range_of(path);
  const char* kind = field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE ? "number" : "integer";
  return range == nullptr ? kind : fmt::format("{}, {}", kind, range->text());
}

void add_fields_of(const google::protobuf::Descriptor& type, const std::string& prefix, Table& table) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      add_fields_of(*field.message_type(), path + ".", table);
      continue;
    }
    table.add({path, default_of(field), values_of(path, field)});
  }
}

int run(const std::string& section, bool as_json) {
  const auto& schema = *RunConfig::descriptor();
  Table table({{"field", Column::Align::Left}, {"default", Column::Align::Left}, {"values", Column::Align::Left}});
  if (section.empty()) {
    add_fields_of(schema, "", table);
  } else {
    const FieldDescriptor* field = schema.FindFieldByName(section);
    if (field == nullptr)
      throw UsageError(
          fmt::format("{}: no section of a config; {}", section, did_you_mean(section, field_names(schema))));
    add_fields_of(*field->message_type(), section + ".", table);
  }
  table.print();
  if (as_json) print_json(Json::Object{{"fields", table.json()}});
  return 0;
}

}  // namespace

void add_fields(Command& program) {
  struct Arguments {
    std::string section;
    bool as_json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  Command command = program.add_command("fields", "Every field of a run config: its default, and the values it takes");
  command.add_option("SECTION", &arguments->section, "model, data, ...: only this one");
  command.add_json(arguments->as_json);
  command.runs([arguments] { return run(arguments->section, arguments->as_json); });
}

}  // namespace tessera
