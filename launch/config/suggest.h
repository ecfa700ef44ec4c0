// "Did you mean ...?"
#pragma once

#include <string>
#include <vector>

namespace tessera {

// Insertions, deletions, substitutions and swaps of neighbours that turn a into b, letter case ignored (the restricted
// Damerau-Levenshtein distance).
int edit_distance(const std::string& a, const std::string& b);

// The names that `name` may have been meant for, most likely first, at most three: those a few edits away, else those
// that contain it ("heads" in "num_attention_heads").
std::vector<std::string> nearest(const std::string& name, const std::vector<std::string>& names);

// For the end of an error message: "did you mean "a" or "b"?", or, when nothing is near, "choose one of a, b, c".
std::string did_you_mean(const std::string& name, const std::vector<std::string>& names);

}  // namespace tessera
