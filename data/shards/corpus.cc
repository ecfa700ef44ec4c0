#include "data/shards/corpus.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>

#include "data/shards/byte_stream.h"
#include "data/tokenizer/utf8.h"
#include "tensor/check.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

bool is_json_lines(const std::string& path) {
  const std::string name = without_compression_suffix(path);
  return name.ends_with(".jsonl") || name.ends_with(".ndjson");
}

// Appends the files below `directory` to `files`, in any order, and what is passed over to `skipped`.
void list_files(const std::string& directory, std::vector<std::string>& files, std::vector<std::string>& skipped) {
  std::error_code error;
  fs::recursive_directory_iterator entry(directory, error);
  const fs::recursive_directory_iterator end;
  for (; !error && entry != end; entry.increment(error)) {
    const std::string path = entry->path().string();
    std::error_code ignored;  // of a dangling link: it is then neither a file nor a directory
    if (entry->path().filename().string().starts_with('.')) {
      entry.disable_recursion_pending();
      skipped.push_back(path + ": hidden");
    } else if (entry->is_directory(ignored)) {
      if (entry->is_symlink(ignored)) skipped.push_back(path + ": a symbolic link to a directory");
    } else if (entry->is_regular_file(ignored)) {
      files.push_back(path);
    } else {
      skipped.push_back(path + ": neither a file nor a directory");
    }
  }
  if (error) throw IoError(fmt::format("cannot read directory {}: {}", directory, error.message()));
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos; }

// Picks the string under one key of the outermost object out of the events of a JSON parser, and keeps nothing else:
// memory does not grow with what the other keys hold, nor the stack with their nesting.
class TextHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  TextHandler(std::string_view wanted, std::string& text) : wanted_(wanted), text_(text) {}

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }
  bool start_array(std::size_t) override { return value("an array") && ++depth_; }
  bool end_array() override { return --depth_, true; }
  bool end_object() override { return --depth_, true; }
  bool start_object(std::size_t) override {
    if (depth_ == 0) outermost_is_object_ = true;
    return value("an object") && ++depth_;
  }
  bool string(string_t& text) override {
    if (at_wanted_ && depth_ == 1) {
      text_ = text;
      found_ = true;
      at_wanted_ = false;
      return true;
    }
    return value("a string");
  }
  bool key(string_t& name) override {
    if (depth_ != 1) return true;
    at_wanted_ = name == wanted_;
    if (at_wanted_ && (found_ || !kind_.empty())) return problem_ = "the key stands twice", false;
    if (keys_.size() < kMostKeys) keys_ += (keys_.empty() ? "" : ", ") + name;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: what": only the last part says something.
    const std::string what = error.what();
    const size_t colon = what.find(": ");
    problem_ = fmt::format("not JSON at byte {}: {}", position, colon == what.npos ? what : what.substr(colon + 2));
    return false;
  }

  // What is wrong with the line; empty: the text was found.
  std::string problem() const {
    if (!problem_.empty()) return problem_;
    if (!outermost_is_object_) return "not a JSON object";
    if (found_) return "";
    if (!kind_.empty()) return fmt::format("the value of \"{}\" is {}, not a string", wanted_, kind_);
    return fmt::format("no key \"{}\" (the keys are: {})", wanted_, keys_.empty() ? "none" : keys_);
  }

 private:
  static constexpr size_t kMostKeys = 200;  // bytes of key names in a message

  bool value(const char* kind) {
    if (at_wanted_ && depth_ == 1) kind_ = kind;
    at_wanted_ = at_wanted_ && depth_ > 1;
    return true;
  }

  std::string_view wanted_;
  std::string& text_;
  std::string keys_, kind_, problem_;
  int64_t depth_ = 0;
  bool at_wanted_ = false, found_ = false, outermost_is_object_ = false;
};

// Overwrites text with the string under `key` of a line; what is wrong with the line, else nothing.
std::string find_text(const std::string& line, std::string_view key, std::string& text) {
  if (const auto invalid = find_invalid_utf8(line))
    return fmt::format("not UTF-8 (byte 0x{:02X} at byte {} of the line)", static_cast<unsigned char>(line[*invalid]),
                       *invalid);
  TextHandler handler(key, text);
  nlohmann::json::sax_parse(line, &handler);
  return handler.problem();
}

}  // namespace

// A file through a buffer, in lines or whole, within the limit on documents.
class Corpus::Reader {
 public:
  Reader(const std::string& path, int64_t most_bytes)
      : path_(path), stream_(ByteStream::open(path)), buffer_(128 << 10), most_bytes_(most_bytes) {}

  const std::string& path() const { return path_; }
  int64_t line() const { return line_; }

  // Overwrites `line` with the next line without its end; false at the end of the file.
  bool next_line(std::string& line) {
    line.clear();
    if (!refill()) return false;
    ++line_;
    while (refill()) {
      const auto begin = buffer_.begin() + static_cast<std::ptrdiff_t>(begin_);
      const auto end = buffer_.begin() + static_cast<std::ptrdiff_t>(end_);
      const auto stop = std::find(begin, end, '\n');
      append(line, static_cast<size_t>(stop - begin), fmt::format("{}:{}", path_, line_));
      if (stop == end) continue;
      ++begin_;
      break;
    }
    return true;
  }

  void read_all(std::string& text) {
    text.clear();
    while (refill()) append(text, end_ - begin_, path_);
  }

 private:
  bool refill() {
    if (begin_ < end_) return true;
    begin_ = 0;
    end_ = stream_->read(buffer_);
    return end_ > 0;
  }

  void append(std::string& text, size_t count, const std::string& where) {
    if (static_cast<int64_t>(text.size() + count) > most_bytes_)
      throw DataError(fmt::format("{}: a document of more than the limit of {} bytes; split it or raise the limit",
                                  where, most_bytes_));
    text.append(buffer_.data() + begin_, count);
    begin_ += count;
  }

  std::string path_;
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> buffer_;
  int64_t most_bytes_;
  size_t begin_ = 0, end_ = 0;
  int64_t line_ = 0;
};

Corpus::Corpus(const std::vector<std::string>& paths, CorpusOptions options) : options_(std::move(options)) {
  TESSERA_CHECK(options_.max_document_bytes > 0, "a limit on documents");
  for (const std::string& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) throw DataError(fmt::format("{}: no such file or directory", path));
    if (error) throw IoError(fmt::format("cannot read {}: {}", path, error.message()));
    const size_t first = files_.size();
    if (fs::is_directory(status))
      list_files(path, files_, report_.skipped);
    else
      files_.push_back(path);
    std::sort(files_.begin() + static_cast<std::ptrdiff_t>(first), files_.end());
  }
  std::sort(report_.skipped.begin(), report_.skipped.end());
  std::set<std::string> seen;
  for (const std::string& file : files_)
    if (!seen.insert(fs::absolute(file).lexically_normal().string()).second)
      throw DataError(fmt::format("{} is named twice: its documents would be repeated", file));
  if (files_.empty()) {
    std::string names;
    for (const std::string& path : paths) names += (names.empty() ? "" : ", ") + path;
    throw DataError(fmt::format("no file to read in {} ({} skipped)", names.empty() ? "an empty list of paths" : names,
                                report_.skipped.size()));
  }
}

Corpus::~Corpus() = default;

bool Corpus::next_text(Document& document, const std::string& path) {
  Reader(path, options_.max_document_bytes).read_all(document.text);
  const size_t nul = document.text.find('\0');
  const std::optional<size_t> invalid = find_invalid_utf8(document.text);
  std::string problem;
  if (invalid)
    problem = fmt::format("not UTF-8 (byte 0x{:02X} at offset {})", static_cast<unsigned char>(document.text[*invalid]),
                          *invalid);
  else if (nul != std::string::npos)
    problem = fmt::format("a NUL byte at offset {}", nul);
  if (!problem.empty()) {
    if (options_.binary_files == BinaryFiles::Refuse)
      throw DataError(
          fmt::format("{}: {}; convert it, take it away, or have such files skipped (--skip-binary)", path, problem));
    report_.skipped.push_back(fmt::format("{}: {}", path, problem));
    return false;
  }
  drop_byte_order_mark(document.text);
  if (!is_blank(document.text)) return true;
  ++report_.empty_documents;
  return false;
}

void Corpus::drop_byte_order_mark(std::string& text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (!text.starts_with(kMark)) return;
  text.erase(0, kMark.size());
  ++report_.byte_order_marks;
}

bool Corpus::next_line(Document& document) {
  std::string line;
  while (reader_->next_line(line)) {
    if (reader_->line() == 1) drop_byte_order_mark(line);
    if (is_blank(line)) continue;
    if (const std::string problem = find_text(line, options_.text_key, document.text); !problem.empty()) {
      const std::string where = fmt::format("{}:{}: {}", reader_->path(), reader_->line(), problem);
      if (options_.broken_lines == BrokenLines::Refuse)
        throw DataError(where + "; mend it, or have such lines skipped (--skip-broken-lines)");
      if (report_.broken_lines++ == 0) report_.first_broken_line = where;
      continue;
    }
    drop_byte_order_mark(document.text);
    if (!is_blank(document.text)) return true;
    ++report_.empty_documents;
  }
  return false;
}

bool Corpus::next(Document& document) {
  const auto deliver = [&](int64_t line) {
    document.source = files_[file_ - 1];
    document.line = line;
    document.index = report_.documents++;
    report_.bytes += static_cast<int64_t>(document.text.size());
    return true;
  };
  while (true) {
    if (reader_) {
      if (next_line(document)) return deliver(reader_->line());
      reader_.reset();
    }
    if (file_ == files_.size()) break;
    const std::string& path = files_[file_++];
    if (is_json_lines(path))
      reader_ = std::make_unique<Reader>(path, options_.max_document_bytes);
    else if (next_text(document, path))
      return deliver(0);
  }
  if (report_.documents == 0)
    throw DataError(fmt::format("no document in the files given: {} in all, {} empty, {} skipped{}; the first is {}",
                                files_.size(), report_.empty_documents, report_.skipped.size(),
                                report_.broken_lines > 0 ? fmt::format(", {} broken lines, of which the first is {}",
                                                                       report_.broken_lines, report_.first_broken_line)
                                                         : "",
                                files_.front()));
  return false;
}

}  // namespace tessera
