// Where each field of a config came from, and all that is wrong with it: a user should see every mistake at once.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

namespace tessera {

// Path of a field -> "run.textproto:3:5" or "--set model.hidden_size=0".
class Origins {
 public:
  void set(const std::string& path, const std::string& where) { where_[path] = where; }
  // Forgets a field and everything in it.
  void erase(const std::string& path);
  // Where the field was set; for an element of a list also where the element begins. "" when it is a default.
  std::string of(const std::string& path) const;

 private:
  std::map<std::string, std::string> where_;
};

class Problems {
 public:
  void add(const std::string& message) { messages_.push_back(message); }
  // Puts in front where the first of these fields that was set came from.
  void add(const Origins& origins, std::initializer_list<std::string> paths, const std::string& message);
  // The same for a message that begins with a field's path ("lr_schedule.warmup_steps = 9: ...").
  void add_located(const Origins& origins, const std::string& message);

  bool empty() const { return messages_.empty(); }
  const std::vector<std::string>& messages() const { return messages_; }
  // Throws UsageError with all messages, one a line, if there are any.
  void throw_if_any() const;

 private:
  std::vector<std::string> messages_;
};

}  // namespace tessera
