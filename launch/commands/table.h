// What a command reports, told once: columns or facts have a key, which is what people read and what JSON calls it.
#pragma once

#include <concepts>
#include <string>
#include <vector>

#include "launch/commands/json.h"

namespace tessera {

// 1234567 -> "1,234,567": how this program prints counts.
std::string with_thousands(int64_t n);
// "1 shard", "2 shards"; the plural is given where it is more than an s.
std::string counted(int64_t n, const std::string& one, const std::string& many = "");

// A value: what JSON has, and how it is printed.
struct Cell {
  Json value;
  std::string text;

  Cell() = default;  // null, and nothing is printed
  Cell(Json json, std::string printed) : value(std::move(json)), text(std::move(printed)) {}
  Cell(std::integral auto n) : value(n), text(with_thousands(static_cast<int64_t>(n))) {}
  Cell(const std::string& words) : value(words), text(words) {}
  Cell(const char* words) : value(words), text(words) {}
};

// A number of which people see a few digits: real(0.5, ".3f"). `unit` is printed behind; the number counted in it is
// x * scale, while JSON has x.
Cell real(double x, const std::string& format, const std::string& unit = "", double scale = 1);
Cell plain(int64_t n);    // a number that is a name, such as a step: without commas
Cell bytes(int64_t n);    // "1.50 MiB"
Cell duration(double s);  // "2m 05s"

struct Column {
  enum class Align : uint8_t { Left, Right };

  std::string key;
  Align align = Align::Right;
  int width = 0;  // at least; what is printed row by row has to know
};

// What a row has beside its cells.
struct RowNotes {
  std::string note = {};   // printed behind the row
  std::string below = {};  // printed under the row: whole lines
  Json members = {};       // JSON alone has these
};

// Rows of values. JSON has each row as an object.
class Table {
 public:
  // Whole: by print(), as wide as the longest values. Rows: the headings at once and each row as it is added. Silent:
  // not at all, on ranks other than 0.
  enum class Printing : uint8_t { Whole, Rows, Silent };

  explicit Table(std::vector<Column> columns, Printing printing = Printing::Whole);

  void add(std::vector<Cell> cells, RowNotes notes = {});
  // A last row that JSON does not have among the others.
  void total(std::vector<Cell> cells, const std::string& note = "");

  void print() const;
  Json json() const;  // an array
  size_t rows() const { return objects_.size(); }

 private:
  struct Line {
    std::vector<Cell> cells;
    std::string note, below;
  };
  void keep(Line line);
  void print(const std::vector<int>& widths, const Line& line) const;
  std::vector<int> widths() const;
  Line headings() const;

  std::vector<Column> columns_;
  Printing printing_;
  std::vector<Line> lines_;
  Json::Array objects_;
};

// One line for each fact: key, value, and words that explain it. JSON has them as the members of an object.
class Facts {
 public:
  Facts& add(const std::string& key, Cell value, const std::string& note = "");
  void print() const;
  const Json& json() const { return object_; }

 private:
  struct Line {
    std::string key, text, note;
  };
  std::vector<Line> lines_;
  Json object_ = Json::Object();
};

}  // namespace tessera
