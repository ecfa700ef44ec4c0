#include "launch/commands/json.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tensor/check.h"

namespace tessera {
namespace {

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

struct Writer {
  std::string out = {};

  void operator()(std::monostate) { out += "null"; }
  void operator()(bool value) { out += value ? "true" : "false"; }
  void operator()(int64_t value) { out += fmt::format("{}", value); }
  void operator()(double value) { out += nlohmann::json(value).dump(); }
  void operator()(const std::string& value) { out += quoted(value); }
  void operator()(const Json::Array& values) {
    out += '[';
    for (size_t i = 0; i < values.size(); ++i) out += (i > 0 ? "," : "") + values[i].text();
    out += ']';
  }
  void operator()(const Json::Object& members) {
    out += '{';
    for (size_t i = 0; i < members.size(); ++i)
      out += (i > 0 ? "," : "") + quoted(members[i].first) + ":" + members[i].second.text();
    out += '}';
  }
};

}  // namespace

Json& Json::set(const std::string& key, Json value) {
  if (std::holds_alternative<std::monostate>(value_)) value_ = Object();
  auto& members = std::get<Object>(value_);
  for (auto& [name, old] : members) {
    if (name != key) continue;
    old = std::move(value);
    return *this;
  }
  members.emplace_back(key, std::move(value));
  return *this;
}

Json& Json::set_all(const Json& members) {
  if (members.empty()) return *this;
  for (const auto& [key, value] : std::get<Object>(members.value_)) set(key, value);
  return *this;
}

void Json::push_back(Json value) {
  if (std::holds_alternative<std::monostate>(value_)) value_ = Array();
  std::get<Array>(value_).push_back(std::move(value));
}

bool Json::empty() const {
  if (const auto* values = std::get_if<Array>(&value_)) return values->empty();
  if (const auto* members = std::get_if<Object>(&value_)) return members->empty();
  return std::holds_alternative<std::monostate>(value_);
}

std::string Json::text() const {
  Writer writer;
  std::visit(writer, value_);
  return std::move(writer.out);
}

void print_json(const Json& object) {
  fmt::print("{}\n", object.text());
  std::fflush(stdout);
}

double number_in_last_line(const std::string& output, const std::string& key) {
  const size_t end = output.find_last_not_of('\n'), begin = output.rfind('\n', end);
  const auto object = nlohmann::json::parse(output.substr(begin == std::string::npos ? 0 : begin + 1), nullptr, false);
  TESSERA_CHECK(object.is_object() && object.contains(key) && object[key].is_number(),
                "the last line is a JSON object with the number " + key);
  return object[key].get<double>();
}

}  // namespace tessera
