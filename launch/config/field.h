// Fields of a config by path, as users write them: "model.hidden_size", "data.train[0].path".
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace google::protobuf {
class Descriptor;
class FieldDescriptor;
class Message;
}  // namespace google::protobuf

namespace tessera {

// One value of a message: a singular field (index -1), or one element of a repeated field.
struct FieldRef {
  google::protobuf::Message* message = nullptr;
  const google::protobuf::FieldDescriptor* field = nullptr;
  int index = -1;
};

// The field that a path names in `root`. The last part may name a whole repeated field (index -1 then). Sections on the
// way come into being. Throws UsageError saying which part is unknown, with what was probably meant.
FieldRef find_field(google::protobuf::Message& root, const std::string& path);

// Names of a message's fields; names of an enum field's values.
std::vector<std::string> field_names(const google::protobuf::Descriptor& type);
std::vector<std::string> value_names(const google::protobuf::FieldDescriptor& field);

// "hiden_size" in ModelConfig -> what was probably meant; a name of another section is given with its path.
std::string suggest_field(const google::protobuf::Descriptor& root, const google::protobuf::Descriptor& type,
                          const std::string& name);

// Calls visit(path, ref) for every scalar that the schema has: each singular one whether set or not, and each element
// of the repeated ones that there are, in the order of the schema. Sections that are not set are made.
using Visit = std::function<void(const std::string& path, const FieldRef& ref)>;
void for_each_scalar(google::protobuf::Message& root, const Visit& visit);

// A scalar's value as text, without quotes; the default when it is not set.
std::string value_text(const FieldRef& ref);
bool is_set(const FieldRef& ref);

}  // namespace tessera
