#include "data/tokenizer/tokenizer_json.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "data/tokenizer/byte_alphabet.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;

// Enough of a value to recognise it in a message.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  TokenizerDefinition read(std::string_view text) {
    const Json root = parse(text);
    if (!root.is_object()) refuse("the file", "is not a JSON object");
    for (const char* key : {"normalizer", "truncation", "padding"}) {
      if (const Json* value = find(root, key)) refuse(key, fmt::format("{} is not supported", shown(*value)));
    }
    read_pre_tokenizer(need(root, "pre_tokenizer", ""), "pre_tokenizer");
    if (!ends_in_bytes_) refuse("pre_tokenizer", "has no ByteLevel: the tokenizer does not work on bytes");
    if (const Json* decoder = find(root, "decoder"); decoder && type_of(*decoder, "decoder") != "ByteLevel")
      refuse("decoder.type", fmt::format("{} is not supported; it must be ByteLevel", type_of(*decoder, "decoder")));
    if (const Json* post = find(root, "post_processor")) check_post_processor(*post, "post_processor");
    read_model(need(root, "model", ""));
    read_added_tokens(root);
    return std::move(definition_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what, const std::string& why) const {
    throw DataError(fmt::format("tokenizer {}: {} {}", name_, what, why));
  }

  Json parse(std::string_view text) const {
    if (text.size() > kMaxTokenizerFileBytes)
      refuse("the file", fmt::format("has {} bytes; at most {} are read", text.size(), kMaxTokenizerFileBytes));
    std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
      if (depth > kMaxDepth) refuse("the file", fmt::format("nests deeper than {} levels", kMaxDepth));
      if (event == Json::parse_event_t::object_start) {
        keys.emplace_back();
      } else if (event == Json::parse_event_t::object_end) {
        keys.pop_back();
      } else if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
        refuse("the file", fmt::format("has the key {} twice in one object", shown(parsed)));
      }
      return true;
    };
    try {
      return Json::parse(text, watch);
    } catch (const Json::exception& error) {
      refuse("the file", fmt::format("is not JSON: {}", error.what()));
    }
  }

  // The value of a key, nothing when it is missing or null.
  static const Json* find(const Json& object, const char* key) {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }

  const Json& need(const Json& object, const char* key, const std::string& where) const {
    const Json* value = find(object, key);
    if (value == nullptr) refuse(where.empty() ? key : where + "." + key, "is missing");
    return *value;
  }

  bool boolean(const Json& object, const char* key, bool otherwise, const std::string& where) const {
    const Json* value = find(object, key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(where + "." + key, fmt::format("is {}, neither true nor false", shown(*value)));
    return value->get<bool>();
  }

  std::string string(const Json& object, const char* key, const std::string& where) const {
    const Json& value = need(object, key, where);
    if (!value.is_string()) refuse(where + "." + key, fmt::format("is {}, not a string", shown(value)));
    return value.get<std::string>();
  }

  std::string type_of(const Json& object, const std::string& where) const {
    if (!object.is_object()) refuse(where, fmt::format("is {}, not an object", shown(object)));
    return string(object, "type", where);
  }

  const Json& list(const Json& object, const char* key, const std::string& where) const {
    const Json& value = need(object, key, where);
    if (!value.is_array()) refuse(where + "." + key, "is not a list");
    return value;
  }

  int32_t id(const Json& value, const std::string& where) const {
    if (!value.is_number_integer() || value < 0 || value > kMaxTokenId)
      refuse(where, fmt::format("has the id {}; ids are integers from 0 to {}", shown(value), kMaxTokenId));
    return value.get<int32_t>();
  }

  void read_pre_tokenizer(const Json& step, const std::string& where) {
    if (ends_in_bytes_) refuse(where, "follows ByteLevel, which must be the last");
    const std::string type = type_of(step, where);
    if (type == "Sequence") {
      const Json& steps = list(step, "pretokenizers", where);
      for (size_t i = 0; i < steps.size(); ++i)
        read_pre_tokenizer(steps[i], fmt::format("{}.pretokenizers[{}]", where, i));
    } else if (type == "ByteLevel") {
      need(step, "add_prefix_space", where);
      if (boolean(step, "add_prefix_space", false, where))
        refuse(where + ".add_prefix_space", "is true, which is not supported: text is encoded as it stands");
      if (boolean(step, "use_regex", true, where)) definition_.split.push_back(SplitPattern::Gpt2);
      ends_in_bytes_ = true;
    } else if (type == "Digits") {
      const bool single = boolean(step, "individual_digits", false, where);
      definition_.split.push_back(single ? SplitPattern::Digit : SplitPattern::DigitRun);
    } else if (type == "Split") {
      read_split(step, where);
    } else {
      refuse(where + ".type", fmt::format("{} is not supported; ByteLevel, Split, Digits and Sequence are", type));
    }
  }

  void read_split(const Json& step, const std::string& where) {
    const Json& spelling = need(step, "pattern", where);
    if (!spelling.is_object() || spelling.size() != 1 || !spelling.contains("Regex"))
      refuse(where + ".pattern", fmt::format("is {}; only a Regex is supported", shown(spelling)));
    const std::string regex = string(spelling, "Regex", where + ".pattern");
    SplitPattern pattern;
    try {
      pattern = find_split_pattern(regex);
    } catch (const DataError& error) {
      refuse(where + ".pattern:", error.what());
    }
    const std::string behavior = string(step, "behavior", where);
    const bool invert = boolean(step, "invert", false, where);
    // Keeping the matches and dropping the rest is the same where there is no rest.
    const bool same_as_isolated =
        behavior == "Isolated" || (behavior == "Removed" && invert && covers_all_text(pattern));
    if (!same_as_isolated)
      refuse(where + ".behavior",
             fmt::format("\"{}\" with invert = {} is not supported; Isolated is", behavior, invert));
    definition_.split.push_back(pattern);
  }

  void check_post_processor(const Json& post, const std::string& where) const {
    const std::string type = type_of(post, where);
    if (type == "Sequence") {
      const Json& steps = list(post, "processors", where);
      for (size_t i = 0; i < steps.size(); ++i)
        check_post_processor(steps[i], fmt::format("{}.processors[{}]", where, i));
    } else if (type != "ByteLevel" && type != "TemplateProcessing" && type != "BertProcessing" &&
               type != "RobertaProcessing") {
      refuse(where + ".type", fmt::format("{} is not known", type));
    }
  }

  void read_model(const Json& model) {
    if (!model.is_object()) refuse("model", "is not an object");
    // Files of GPT-2's time do not name the type; a vocabulary with merges is BPE.
    if (const Json* type = find(model, "type"); type && *type != "BPE")
      refuse("model.type", fmt::format("{} is not supported; it must be \"BPE\"", shown(*type)));
    if (const Json* dropout = find(model, "dropout"); dropout && *dropout != 0.0)
      refuse("model.dropout", fmt::format("{} is not supported: encodings must not be random", shown(*dropout)));
    if (const Json* unknown = find(model, "unk_token"))
      refuse("model.unk_token", fmt::format("{} is not supported: every byte has a token", shown(*unknown)));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (const Json* value = find(model, key); value && *value != "")
        refuse(fmt::format("model.{}", key), fmt::format("{} is not supported", shown(*value)));
    }
    if (boolean(model, "byte_fallback", false, "model"))
      refuse("model.byte_fallback", "is true, which is not supported: tokens must be byte-level");
    definition_.ignore_merges = boolean(model, "ignore_merges", false, "model");
    read_vocabulary(need(model, "vocab", "model"));
    read_merges(list(model, "merges", "model"));
  }

  void read_vocabulary(const Json& vocabulary) {
    if (!vocabulary.is_object()) refuse("model.vocab", "is not an object");
    ids_.reserve(vocabulary.size());
    std::unordered_map<int32_t, std::string> name_of;
    for (const auto& [token, value] : vocabulary.items()) {
      const int32_t token_id = id(value, fmt::format("model.vocab[{}]", shown(token)));
      if (token.empty()) refuse("model.vocab", "has a token without a name");
      if (const auto [other, fresh] = name_of.emplace(token_id, token); !fresh)
        refuse("model.vocab",
               fmt::format("gives {} and {} the same id {}", shown(other->second), shown(token), token_id));
      ids_.emplace(token, token_id);
      auto bytes = alphabet_to_bytes(token);
      const bool byte_level = bytes.has_value();
      definition_.vocabulary.push_back({token_id, byte_level ? std::move(*bytes) : token, byte_level});
    }
    std::ranges::sort(definition_.vocabulary, {}, &VocabularyToken::id);
    for (int byte = 0; byte < 256; ++byte) {
      const std::string token = bytes_to_alphabet(std::string(1, static_cast<char>(byte)));
      if (!ids_.contains(token))
        refuse("model.vocab", fmt::format("has no token for byte {:#04x} (\"{}\"); all 256 are needed", byte, token));
    }
  }

  int32_t known(const std::string& token, size_t rank) const {
    const auto it = ids_.find(token);
    if (it == ids_.end())
      refuse(fmt::format("model.merges[{}]", rank), fmt::format("names {}, which is not in model.vocab", shown(token)));
    return it->second;
  }

  void read_merges(const Json& merges) {
    definition_.merges.reserve(merges.size());
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const Json& merge = merges[rank];
      std::string left, right;
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else if (merge.is_string() && std::ranges::count(merge.get_ref<const std::string&>(), ' ') == 1) {
        const std::string& both = merge.get_ref<const std::string&>();
        left = both.substr(0, both.find(' '));
        right = both.substr(both.find(' ') + 1);
      } else {
        refuse(fmt::format("model.merges[{}]", rank), fmt::format("is {}; it must be two tokens", shown(merge)));
      }
      definition_.merges.push_back({known(left, rank), known(right, rank), known(left + right, rank)});
    }
  }

  void read_added_tokens(const Json& root) {
    if (find(root, "added_tokens") == nullptr) return;
    const Json& tokens = list(root, "added_tokens", "the file");
    std::unordered_map<int32_t, const VocabularyToken*> vocabulary;
    for (const VocabularyToken& token : definition_.vocabulary) vocabulary.emplace(token.id, &token);
    std::set<std::string> contents;
    std::set<int32_t> added_ids;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string where = fmt::format("added_tokens[{}]", i);
      if (!tokens[i].is_object()) refuse(where, "is not an object");
      AddedToken token{.id = id(need(tokens[i], "id", where), where),
                       .content = string(tokens[i], "content", where),
                       .special = boolean(tokens[i], "special", false, where),
                       .normalized = boolean(tokens[i], "normalized", false, where)};
      if (token.content.empty()) refuse(where + ".content", "is empty");
      if (!contents.insert(token.content).second || !added_ids.insert(token.id).second)
        refuse(where, fmt::format("repeats the content {} or the id {}", shown(token.content), token.id));
      const auto in_model = ids_.find(token.content);
      if (in_model != ids_.end() ? in_model->second != token.id : vocabulary.contains(token.id))
        refuse(where, fmt::format("gives {} the id {}, against model.vocab", shown(token.content), token.id));
      for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
        // Special tokens are never looked for in text, so what surrounds them does not matter.
        if (!token.special && boolean(tokens[i], flag, false, where))
          refuse(where + "." + flag, fmt::format("is true for {}, which is not supported", shown(token.content)));
      }
      definition_.added_tokens.push_back(std::move(token));
    }
    std::ranges::sort(definition_.added_tokens, {}, &AddedToken::id);
  }

  const std::string& name_;
  TokenizerDefinition definition_;
  bool ends_in_bytes_ = false;
  std::unordered_map<std::string, int32_t> ids_;
};

std::string quoted(const std::string& text) { return Json(text).dump(); }

std::string name_of(const VocabularyToken& token) {
  return token.byte_level ? bytes_to_alphabet(token.bytes) : token.bytes;
}

// ByteLevel cuts by GPT-2's pattern itself; any other pattern is a Split before it.
Json pre_tokenizer(const std::vector<SplitPattern>& split) {
  const bool gpt2_last = !split.empty() && split.back() == SplitPattern::Gpt2;
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2_last}};
  Json steps = Json::array();
  for (size_t i = 0; i + (gpt2_last ? 1 : 0) < split.size(); ++i) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", std::string(split_regex(split[i]))}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  if (steps.empty()) return byte_level;
  steps.push_back(byte_level);
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace

TokenizerDefinition parse_tokenizer_json(std::string_view text, const std::string& name) {
  return Reader(name).read(text);
}

std::string write_tokenizer_json(const TokenizerDefinition& definition) {
  Json added = Json::array();
  for (const AddedToken& token : definition.added_tokens) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  const Json decoder = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  // Vocabulary and merges are written by hand, in the order of ids and ranks (nlohmann's objects sort by name).
  std::string vocabulary, merges;
  std::unordered_map<int32_t, std::string> names;
  for (const VocabularyToken& token : definition.vocabulary) {
    const std::string& name = names.emplace(token.id, name_of(token)).first->second;
    vocabulary += fmt::format("{}\n      {}: {}", vocabulary.empty() ? "" : ",", quoted(name), token.id);
  }
  for (const Merge& merge : definition.merges) {
    const std::string both = names.at(merge.left) + " " + names.at(merge.right);
    merges += fmt::format("{}\n      {}", merges.empty() ? "" : ",", quoted(both));
  }
  return fmt::format(R"({{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": {},
  "normalizer": null,
  "pre_tokenizer": {},
  "post_processor": null,
  "decoder": {},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": {},
    "vocab": {{{}
    }},
    "merges": [{}
    ]
  }}
}}
)",
                     added.dump(), pre_tokenizer(definition.split).dump(), decoder.dump(), definition.ignore_merges,
                     vocabulary, merges);
}

}  // namespace tessera
