#include "data/tokenizer/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>

#include <array>
#include <utility>

#include "tensor/check.h"

namespace tessera {
namespace {

struct Known {
  SplitPattern pattern;
  bool covers_all;
  std::string_view name;
  std::string_view regex;
};

// GPT-2: Radford et al. 2019; Llama 3 (as in cl100k): contractions in any case, digits in groups of three; Qwen 2: the
// same with single digits; GPT-4o: words cut where lower case turns to upper.
constexpr std::array kKnown = {
    Known{SplitPattern::Gpt2, true, "gpt2",
          R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    Known{
        SplitPattern::Llama3, true, "llama3",
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    Known{
        SplitPattern::Qwen2, true, "qwen2",
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    Known{
        SplitPattern::Gpt4o, true, "gpt4o",
        R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    Known{SplitPattern::Digit, false, "digit", R"(\p{N})"},
    Known{SplitPattern::DigitRun, false, "digit run", R"(\p{N}+)"},
    Known{SplitPattern::ThreeDigits, false, "three digits", R"(\p{N}{1,3})"},
};

const Known& known(SplitPattern pattern) {
  for (const Known& candidate : kKnown)
    if (candidate.pattern == pattern) return candidate;
  throw InternalError("an unknown split pattern");
}

// PCRE2 counts backtracking steps. The accepted patterns take a few steps a character at most, all of them in runs of
// white space or letters, so this bounds the run, not the text.
constexpr uint32_t kMatchLimit = 1'000'000'000;
constexpr uint32_t kHeapLimitKib = 1 << 20;

// PCRE2's \s also takes U+180E, which has not been white space since Unicode 6.3; Oniguruma's is the property.
std::string to_pcre2(std::string_view regex) {
  std::string translated;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] != '\\' || i + 1 == regex.size()) {
      translated += regex[i];
      continue;
    }
    const char escaped = regex[++i];
    if (escaped == 's') {
      translated += R"(\p{White_Space})";
    } else if (escaped == 'S') {
      translated += R"(\P{White_Space})";
    } else {
      translated += {'\\', escaped};
    }
  }
  return translated;
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct CodeFree {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataFree {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextFree {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

std::string_view split_regex(SplitPattern pattern) { return known(pattern).regex; }

bool covers_all_text(SplitPattern pattern) { return known(pattern).covers_all; }

SplitPattern find_split_pattern(std::string_view regex) {
  std::string accepted;
  for (const Known& candidate : kKnown) {
    if (candidate.regex == regex) return candidate.pattern;
    accepted += fmt::format("\n  {}: {}", candidate.name, candidate.regex);
  }
  throw DataError(fmt::format("the split pattern \"{}\" is not one of those that are accepted:{}", regex, accepted));
}

struct Pretokenizer::Program {
  std::unique_ptr<pcre2_code, CodeFree> code;

  explicit Program(SplitPattern pattern) {
    const std::string regex = to_pcre2(split_regex(pattern));
    int error = 0;
    PCRE2_SIZE offset = 0;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
    TESSERA_CHECK(code != nullptr, fmt::format("{} at {} of {}", pcre2_message(error), offset, regex));
    // Fails where memory may not be made executable; the interpreter then gives the same pieces, slower.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  }
};

struct Pretokenizer::Scratch::State {
  std::unique_ptr<pcre2_match_data, MatchDataFree> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, MatchContextFree> context{pcre2_match_context_create(nullptr)};

  State() {
    if (!match || !context) throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  }
};

Pretokenizer::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Pretokenizer::Scratch::~Scratch() = default;
Pretokenizer::Scratch::Scratch(Scratch&&) noexcept = default;
Pretokenizer::Scratch& Pretokenizer::Scratch::operator=(Scratch&&) noexcept = default;

Pretokenizer::Pretokenizer(std::vector<SplitPattern> patterns) : patterns_(std::move(patterns)) {
  for (const SplitPattern pattern : patterns_) programs_.emplace_back(pattern);
}
Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

void Pretokenizer::split(std::string_view text, Scratch& scratch, FunctionRef<void(std::string_view)> piece) const {
  if (!text.empty()) split_from(0, text, scratch, piece);
}

void Pretokenizer::split_from(size_t step, std::string_view text, Scratch& scratch,
                              FunctionRef<void(std::string_view)> piece) const {
  if (step == programs_.size()) return piece(text);
  const auto pass_on = [&](std::string_view part) { split_from(step + 1, part, scratch, piece); };
  const auto& state = *scratch.state_;
  const PCRE2_SIZE* const span = pcre2_get_ovector_pointer(state.match.get());
  size_t done = 0;
  while (done < text.size()) {
    const int result = pcre2_match(programs_[step].code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                   done, PCRE2_NO_UTF_CHECK, state.match.get(), state.context.get());
    if (result == PCRE2_ERROR_NOMATCH) return pass_on(text.substr(done));
    if (result < 0)
      throw DataError(fmt::format("cannot split the text at byte {} ({}): it has a run of too many like characters",
                                  done, pcre2_message(result)));
    const size_t begin = span[0], end = span[1];
    TESSERA_CHECK(end > begin, "a split pattern matched nothing");
    if (begin > done) pass_on(text.substr(done, begin - done));
    pass_on(text.substr(begin, end - begin));
    done = end;
  }
}

}  // namespace tessera
