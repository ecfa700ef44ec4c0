#include "parallel/schedule.h"

#include <algorithm>
#include <cctype>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr ActionKind kKinds[] = {ActionKind::Forward, ActionKind::BackwardInput, ActionKind::BackwardWeight,
                                 ActionKind::Reduce,  ActionKind::Norm,          ActionKind::Step};

char letter(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return 'F';
    case ActionKind::BackwardInput:
      return 'B';
    case ActionKind::BackwardWeight:
      return 'W';
    case ActionKind::Reduce:
      return 'R';
    case ActionKind::Norm:
      return 'N';
    case ActionKind::Step:
      return 'S';
  }
  return '?';
}

bool per_microbatch(ActionKind kind) {
  return kind == ActionKind::Forward || kind == ActionKind::BackwardInput || kind == ActionKind::BackwardWeight;
}

std::string to_string(const Action& action) {
  std::string text(1, letter(action.kind));
  if (action.microbatch >= 0) text += std::to_string(action.microbatch);
  if (action.stage != 0) text.append("@").append(std::to_string(action.stage));
  return text;
}

// The replay of a list.
class Replay {
 public:
  Replay(const Schedule& schedule, int microbatches)
      : forward_only_(std::none_of(schedule.begin(), schedule.end(),
                                   [](const Action& a) { return a.kind != ActionKind::Forward; })),
        progress_(microbatches) {}

  // Why the action may not come next, or nothing.
  std::string play(const Action& action) {
    if (action.stage != 0) return "there is one stage, 0";
    if (!per_microbatch(action.kind)) return play_whole(action);
    const int m = action.microbatch;
    if (m < 0 || m >= static_cast<int>(progress_.size())) {
      return "there are microbatches 0 to " + std::to_string(progress_.size() - 1);
    }
    if (tail_ > 0) return "REDUCE, NORM and STEP come after all microbatches";
    const int turn = static_cast<int>(action.kind);  // 0, 1, 2
    if (progress_[m] != turn) {
      return progress_[m] > turn ? "it was done before" : std::string(name(kKinds[progress_[m]])) + " must come first";
    }
    if (action.kind == ActionKind::BackwardWeight) {
      if (m != next_weight_) return "BACKWARD_WEIGHT goes in microbatch order";
      ++next_weight_;
      --alive_;
    }
    if (action.kind == ActionKind::Forward && !forward_only_) most_ = std::max(most_, ++alive_);
    ++progress_[m];
    return "";
  }

  // Why the list may not end here, or nothing.
  std::string end() const {
    for (size_t m = 0; m < progress_.size(); ++m) {
      if (progress_[m] < (forward_only_ ? 1 : 3)) {
        return std::string(name(kKinds[progress_[m]])) + " of microbatch " + std::to_string(m) + " is missing";
      }
    }
    if (!forward_only_ && tail_ < 3) return std::string(name(kKinds[3 + tail_])) + " is missing";
    return "";
  }

  int most_alive() const { return most_; }

 private:
  std::string play_whole(const Action& action) {
    if (action.microbatch != -1) return "the action belongs to no microbatch";
    if (!done()) return end();
    const ActionKind wanted = kKinds[std::min(3 + tail_, 5)];
    if (tail_ == 3) return "nothing comes after STEP";
    if (action.kind != wanted) return std::string(name(wanted)) + " must come first";
    ++tail_;
    return "";
  }

  bool done() const {
    return std::all_of(progress_.begin(), progress_.end(), [](int p) { return p == 3; });
  }

  bool forward_only_;
  std::vector<int> progress_;  // by microbatch: how many of forward, backward_input, backward_weight are done
  int next_weight_ = 0;
  int tail_ = 0;  // how many of reduce, norm, step are done
  int alive_ = 0;
  int most_ = 0;
};

}  // namespace

const char* name(ActionKind kind) {
  switch (kind) {
    case ActionKind::Forward:
      return "FORWARD";
    case ActionKind::BackwardInput:
      return "BACKWARD_INPUT";
    case ActionKind::BackwardWeight:
      return "BACKWARD_WEIGHT";
    case ActionKind::Reduce:
      return "REDUCE";
    case ActionKind::Norm:
      return "NORM";
    case ActionKind::Step:
      return "STEP";
  }
  return "?";
}

Schedule accumulation_schedule(int microbatches) {
  TESSERA_CHECK(microbatches >= 1, "a schedule of " + std::to_string(microbatches) + " microbatches");
  Schedule schedule;
  for (int m = 0; m < microbatches; ++m) {
    for (ActionKind kind : {ActionKind::Forward, ActionKind::BackwardInput, ActionKind::BackwardWeight}) {
      schedule.push_back({.kind = kind, .microbatch = m});
    }
  }
  for (ActionKind kind : {ActionKind::Reduce, ActionKind::Norm, ActionKind::Step}) schedule.push_back({.kind = kind});
  return schedule;
}

Schedule forward_schedule(int microbatches) {
  TESSERA_CHECK(microbatches >= 1, "a schedule of " + std::to_string(microbatches) + " microbatches");
  Schedule schedule;
  for (int m = 0; m < microbatches; ++m) schedule.push_back({.kind = ActionKind::Forward, .microbatch = m});
  return schedule;
}

std::string to_string(const Schedule& schedule) {
  std::string text;
  for (const Action& action : schedule) {
    if (!text.empty()) text += ' ';
    text += to_string(action);
  }
  return text;
}

Schedule parse_schedule(const std::string& text) {
  Schedule schedule;
  size_t at = 0;
  const auto number = [&](int if_none) {
    const size_t begin = at;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at]))) ++at;
    if (at - begin > 9) throw UsageError("schedule: number too large: " + text.substr(begin, at - begin));
    return at == begin ? if_none : std::stoi(text.substr(begin, at - begin));
  };
  while (true) {
    while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
    if (at == text.size()) return schedule;
    const size_t begin = at;
    const auto kind =
        std::find_if(std::begin(kKinds), std::end(kKinds), [&](ActionKind k) { return letter(k) == text[at]; });
    ++at;
    Action action{.kind = kind == std::end(kKinds) ? ActionKind::Forward : *kind};
    action.microbatch = number(-1);
    if (at < text.size() && text[at] == '@') {
      ++at;
      action.stage = number(-1);
    }
    const bool ended = at == text.size() || std::isspace(static_cast<unsigned char>(text[at]));
    if (kind == std::end(kKinds) || !ended || action.stage < 0 || per_microbatch(*kind) != (action.microbatch >= 0)) {
      const size_t end = std::min(text.find_first_of(" \t\n", begin), text.size());
      throw UsageError("schedule: '" + text.substr(begin, end - begin) +
                       "' is no action; actions are F, B, W with a microbatch (F0), and R, N, S");
    }
    schedule.push_back(action);
  }
}

int verify(const Schedule& schedule, int microbatches) {
  Replay replay(schedule, microbatches);
  std::string played;
  for (const Action& action : schedule) {
    const std::string bad = replay.play(action);
    if (!played.empty()) played += ' ';
    if (!bad.empty()) {
      throw InternalError("bad schedule: " + to_string(action) + ": " + bad + "\n  " + to_string(schedule) + "\n  " +
                          std::string(played.size(), ' ') + "^");
    }
    played += to_string(action);
  }
  if (const std::string missing = replay.end(); !missing.empty()) {
    throw InternalError("bad schedule: " + missing + "\n  " + to_string(schedule) + "\n  " +
                        std::string(played.size() + (played.empty() ? 0 : 1), ' ') + "^");
  }
  return replay.most_alive();
}

}  // namespace tessera
