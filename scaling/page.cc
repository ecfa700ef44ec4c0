#include "scaling/page.h"

#include <cctype>
#include <cstdint>

#include "scaling/text_file.h"

namespace tessera {
namespace {

constexpr const char* kStyle = R"(
body { margin: 0; background: #f6f7f9; color: #1b1f24; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 24px 32px; background: #fff; }
h1 { font-size: 26px; } h2 { font-size: 19px; margin-top: 36px; border-bottom: 1px solid #d8dde3; padding-bottom: 4px; }
table { border-collapse: collapse; font-size: 13px; margin: 12px 0; }
th, td { padding: 3px 12px; border-bottom: 1px solid #e4e8ec; text-align: left; white-space: nowrap; }
th { background: #eef1f5; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 16px 0; } img { max-width: 100%; } figcaption { color: #57606a; font-size: 13px; }
.warning { background: #fff4d6; border-left: 4px solid #d29922; padding: 8px 12px; }
.wide { overflow-x: auto; }
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\n')
      out += "<br>\n";
    else
      out += c;
  }
  return out;
}

bool is_number(const std::string& cell) {
  if (cell.empty()) return false;
  const size_t at = cell[0] == '-' || cell[0] == '+' ? 1 : 0;
  return at < cell.size() && std::isdigit(static_cast<unsigned char>(cell[at])) != 0;
}

}  // namespace

std::string base64(const std::string& bytes) {
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k) out += i + k > bytes.size() ? '=' : kLetters[group >> (18 - 6 * k) & 63];
  }
  return out;
}

Page::Page(const std::string& title)
    : text_("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + escaped(title) +
            "</title><style>" + kStyle + "</style></head><body><main>\n<h1>" + escaped(title) + "</h1>\n") {}

void Page::heading(const std::string& text) { text_ += "<h2>" + escaped(text) + "</h2>\n"; }

void Page::paragraph(const std::string& text) { text_ += "<p>" + escaped(text) + "</p>\n"; }

void Page::warning(const std::string& text) { text_ += "<p class=\"warning\">" + escaped(text) + "</p>\n"; }

void Page::table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  text_ += "<div class=\"wide\"><table><thead><tr>";
  for (const std::string& cell : header) text_ += "<th>" + escaped(cell) + "</th>";
  text_ += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    text_ += "<tr>";
    for (const std::string& cell : row)
      text_ += (is_number(cell) ? "<td class=\"n\">" : "<td>") + escaped(cell) + "</td>";
    text_ += "</tr>\n";
  }
  text_ += "</tbody></table></div>\n";
}

void Page::picture(const std::string& path, const std::string& caption) {
  text_ += "<figure><img alt=\"" + escaped(caption) + "\" src=\"data:image/png;base64," + base64(read_file(path)) +
           "\"><figcaption>" + escaped(caption) + "</figcaption></figure>\n";
}

}  // namespace tessera
