// An HTML page that needs nothing beside it: pictures are inside.
#pragma once

#include <string>
#include <vector>

namespace tessera {

class Page {
 public:
  explicit Page(const std::string& title);

  // All text is text: what HTML would take as markup is escaped, and line ends are kept.
  void heading(const std::string& text);
  void paragraph(const std::string& text);
  void warning(const std::string& text);
  // Cells that begin with a digit or a sign stand to the right.
  void table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);
  // A PNG. Throws IoError.
  void picture(const std::string& path, const std::string& caption);

  std::string html() const { return text_ + "</main></body></html>\n"; }

 private:
  std::string text_;
};

std::string base64(const std::string& bytes);

}  // namespace tessera
