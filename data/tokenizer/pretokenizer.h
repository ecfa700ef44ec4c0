// Cuts text into the pieces that byte-pair merges never cross.
//
// Patterns are regular expressions in Hugging Face's spelling (Oniguruma). Only the patterns listed here are accepted:
// what another engine makes of an unknown pattern may differ, and a pattern from a file must not be able to run for
// ever. They run on PCRE2 (UTF, Unicode properties, just-in-time compiled, bounded). PCRE2 10.42 knows Unicode 14:
// letters and digits that were assigned later are cut as symbols, where a newer engine takes them for letters.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/context/threads.h"

namespace tessera {

enum class SplitPattern { Gpt2, Llama3, Qwen2, Gpt4o, Digit, DigitRun, ThreeDigits };

// The pattern as it is written in a tokenizer.json.
std::string_view split_regex(SplitPattern pattern);

// The pattern with this spelling; throws DataError for one that is not accepted.
SplitPattern find_split_pattern(std::string_view regex);

// Whether every character of any text lies in a match (so nothing is left between matches).
bool covers_all_text(SplitPattern pattern);

class Pretokenizer {
 public:
  // The patterns are applied one after another, each to the pieces of the one before. No pattern: text is one piece.
  explicit Pretokenizer(std::vector<SplitPattern> patterns);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  // What one thread needs while it splits.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class Pretokenizer;
    struct State;
    std::unique_ptr<State> state_;
  };

  // Calls piece(bytes) for the pieces in order; none is empty, together they are `text`, which must be UTF-8 (not
  // checked). Matches and what lies between them are pieces alike. Throws DataError with the byte offset when PCRE2's
  // limits stop a match (only absurd input does: see kMatchLimit). Several threads may split at once, each with its
  // own scratch.
  void split(std::string_view text, Scratch& scratch, FunctionRef<void(std::string_view)> piece) const;

  const std::vector<SplitPattern>& patterns() const { return patterns_; }

 private:
  struct Program;
  void split_from(size_t step, std::string_view text, Scratch& scratch,
                  FunctionRef<void(std::string_view)> piece) const;

  std::vector<SplitPattern> patterns_;
  std::vector<Program> programs_;
};

}  // namespace tessera
