// Pictures, drawn by gnuplot.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

struct Series {
  enum class Style : uint8_t { Line, Dashed, Points, LinePoints, Band, ErrorBars };
  std::string title;  // "": not in the key
  Style style = Style::Line;
  int colour = 0;  // of the palette, which repeats after 10
  std::vector<double> x, y;
  std::vector<double> low = {}, high = {};  // Band (y is not used), ErrorBars
};

struct Plot {
  std::string title, x_label, y_label;
  bool log_x = false, log_y = false;
  bool powers_x = false;          // 10^18, not 1E
  // gnuplot's words; "off". Above the picture: within it it would hide points.
  std::string key = "tmargin center horizontal";
  std::vector<Series> series = {};
};

// What gnuplot is told, data included; points that are not finite, or not positive on a logarithmic axis, are left out.
std::string gnuplot_script(const std::vector<Plot>& panels, const std::string& picture, int columns, int width,
                           int height);

// Draws panels, row by row, into one PNG, which replaces the file by rename. Throws IoError when gnuplot is missing or
// fails (what it said).
void draw(const std::vector<Plot>& panels, const std::string& picture, int columns = 1, int width = 960,
          int height = 600);

}  // namespace tessera
