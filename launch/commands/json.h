// A JSON value that commands fill and print. It stands before the library, whose header takes seconds to compile.
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace tessera {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order in which keys were set

  Json() = default;  // null
  Json(bool value) : value_(value) {}
  Json(std::integral auto value) : value_(static_cast<int64_t>(value)) {}
  Json(double value) : value_(value) {}  // one that is not finite is printed as null
  Json(std::string value) : value_(std::move(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array values) : value_(std::move(values)) {}
  Json(Object members) : value_(std::move(members)) {}
  template <class T>
  Json(const std::optional<T>& value) : Json(value ? Json(*value) : Json()) {}
  template <class T>
  Json(const std::vector<T>& values) : value_(Array(values.begin(), values.end())) {}
  template <class T>
  Json(const std::map<std::string, T>& members) : value_(Object(members.begin(), members.end())) {}

  // Sets a member of an object, and makes null an object. A key that is there keeps its place.
  Json& set(const std::string& key, Json value);
  // Sets all members of another object.
  Json& set_all(const Json& members);
  // Adds an element to an array, and makes null an array.
  void push_back(Json value);
  bool empty() const;  // null, or nothing in it

  // On one line; bytes that are not UTF-8 become U+FFFD.
  std::string text() const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// The one way in which commands print JSON: a line of standard output, at once.
void print_json(const Json& object);

// The number under `key` in the JSON object that is the last line of what a command printed. Throws InternalError when
// there is none.
double number_in_last_line(const std::string& output, const std::string& key);

}  // namespace tessera
