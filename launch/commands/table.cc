#include "launch/commands/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

void print_trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  fmt::print("{}\n", line);
}

}  // namespace

std::string with_thousands(int64_t n) {
  const std::string digits = fmt::format("{}", n);
  const size_t sign = n < 0 ? 1 : 0;
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string counted(int64_t n, const std::string& one, const std::string& many) {
  return with_thousands(n) + " " + (n == 1 ? one : many.empty() ? one + "s" : many);
}

Cell real(double x, const std::string& format, const std::string& unit, double scale) {
  const std::string number = fmt::format(fmt::runtime("{:" + format + "}"), x * scale);
  return {x, unit.empty() ? number : number + " " + unit};
}

Cell plain(int64_t n) { return {n, fmt::format("{}", n)}; }

Cell bytes(int64_t n) { return {n, format_bytes(static_cast<double>(n))}; }

Cell duration(double s) { return {s, format_duration(s)}; }

Table::Table(std::vector<Column> columns, Printing printing) : columns_(std::move(columns)), printing_(printing) {
  if (printing_ == Printing::Rows) print(widths(), headings());
}

void Table::add(std::vector<Cell> cells, RowNotes notes) {
  TESSERA_CHECK(cells.size() == columns_.size(), "a row has a value for each column of its table");
  Json object = Json::Object();
  for (size_t i = 0; i < cells.size(); ++i) {
    if (!columns_[i].key.empty()) object.set(columns_[i].key, cells[i].value);
  }
  object.set_all(notes.members);
  objects_.push_back(std::move(object));
  keep({std::move(cells), std::move(notes.note), std::move(notes.below)});
}

void Table::total(std::vector<Cell> cells, const std::string& note) {
  TESSERA_CHECK(cells.size() == columns_.size(), "a row has a value for each column of its table");
  keep({std::move(cells), note, {}});
}

void Table::keep(Line line) {
  if (printing_ == Printing::Rows) print(widths(), line);
  if (printing_ == Printing::Whole) lines_.push_back(std::move(line));
}

Table::Line Table::headings() const {
  Line line;
  for (const Column& column : columns_) line.cells.push_back({Json(), column.key});
  return line;
}

std::vector<int> Table::widths() const {
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    int width = std::max(columns_[i].width, static_cast<int>(columns_[i].key.size()));
    for (const Line& line : lines_) width = std::max(width, static_cast<int>(line.cells[i].text.size()));
    widths.push_back(width);
  }
  return widths;
}

void Table::print(const std::vector<int>& widths, const Line& line) const {
  std::string text;
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (i > 0) text += "  ";
    text += columns_[i].align == Column::Align::Left ? fmt::format("{:<{}}", line.cells[i].text, widths[i])
                                                     : fmt::format("{:>{}}", line.cells[i].text, widths[i]);
  }
  print_trimmed(line.note.empty() ? text : text + "  " + line.note);
  fmt::print("{}", line.below);
  std::fflush(stdout);
}

void Table::print() const {
  if (printing_ != Printing::Whole) return;
  const std::vector<int> widths = this->widths();
  print(widths, headings());
  for (const Line& line : lines_) print(widths, line);
}

Json Table::json() const { return objects_; }

Facts& Facts::add(const std::string& key, Cell value, const std::string& note) {
  object_.set(key, value.value);
  lines_.push_back({key, std::move(value.text), note});
  return *this;
}

void Facts::print() const {
  size_t key = 0, value = 0;
  for (const Line& line : lines_) {
    key = std::max(key, line.key.size());
    value = std::max(value, line.text.size());
  }
  for (const Line& line : lines_)
    print_trimmed(fmt::format("{:<{}}  {:>{}}  {}", line.key, key, line.text, value, line.note));
}

}  // namespace tessera
