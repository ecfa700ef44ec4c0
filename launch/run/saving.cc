#include "launch/run/saving.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "checkpoint/checkpoint.pb.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/format/names.h"
#include "checkpoint/manifest.pb.h"
#include "launch/process/host.h"
#include "parallel/reducer_between.h"

namespace tessera {
namespace {

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// Why a run is to end, as ranks tell each other: where several have a reason, the largest number is said.
constexpr double kNoStop = 0, kTimeLimit = 1, kStopFile = 2, kSignal = 100;  // and the signal's number

std::string stop_reason(double code) {
  if (code == kNoStop) return "";
  if (code == kTimeLimit) return "the time limit";
  if (code == kStopFile) return "the file STOP";
  return signal_name(static_cast<int>(code - kSignal));
}

// As `tessera checkpoint list` has it; the tensors' bytes where the manifest cannot be read.
int64_t bytes_on_disk(Storage& storage, const Saved& saved) {
  try {
    const std::string path = join(saved.path, kManifestName);
    Manifest manifest;
    parse_manifest(storage.read_file(path, storage.file_size(path)), path, manifest);
    return stored_bytes(manifest);
  } catch (const Error&) {
    return saved.bytes;  // Reading again will say what is wrong.
  }
}

// Only step() changes the weights.
class Guard : public ReducerBetween {
 public:
  Guard(Reducer& reducer, Saver& saver) : ReducerBetween(reducer), saver_(saver) {}
  void step(Context& context, double learning_rate, int64_t step) override {
    saver_.state_may_change();
    reducer_.step(context, learning_rate, step);
  }

 private:
  Saver& saver_;
};

}  // namespace

Saving::Saving(const CheckpointConfig& config, Surroundings surroundings)
    : config_(config),
      around_(std::move(surroundings)),
      directory_(around_.run_directory + "/checkpoints"),
      signals_(around_.world.rank() == 0 ? SignalRequests::Speech::SaysThatItEnds : SignalRequests::Speech::Silent),
      saver_(around_.world, storage_,
             {.staging_bytes = config.asynchronous() ? config.staging_mib() << 20 : 0,
              .copy = around_.copy,
              .failpoint = around_.failpoint}),
      rereader_(around_.world, storage_, around_.failpoint),
      start_(Clock::now()),
      last_step_(start_),
      last_begun_(start_) {
  saver_.plan(around_.state());
}

Saving::~Saving() = default;

Reducer& Saving::guard(Reducer& reducer) {
  guard_ = std::make_unique<Guard>(reducer, saver_);
  return *guard_;
}

// Whether the file is in the run directory. It is removed, so that it asks once.
bool Saving::take_file(const char* name) {
  const std::string path = join(around_.run_directory, name);
  try {
    if (!storage_.exists(path)) return false;
    storage_.remove_tree(path);
  } catch (const IoError& error) {
    around_.console.error("warning: {}", error.what());
    return false;
  }
  return true;
}

// Whether another step and then a save might not end before the limit. Twice what was seen: machines have bad moments.
bool Saving::limit_is_near() {
  if (config_.time_limit_minutes() == 0) return false;
  const double left = 60 * config_.time_limit_minutes() - seconds_between(start_, Clock::now());
  return left < 2 * (longest_step_ + longest_save_);
}

Saving::Due Saving::agree(int64_t step, bool last) {
  const Clock::time_point now = Clock::now();
  longest_step_ = std::max(longest_step_, seconds_between(last_step_, now));
  std::array<double, 4> flags = {};  // a signal to save, another reason to save, why to stop, the run was taken over
  // A signal for all ranks may reach some of them a step later.
  const bool signal = signals_.take_save();
  if (signal && (last_signal_ == Clock::time_point() || seconds_between(last_signal_, now) > 1)) flags[0] = 1;
  if (const int number = signals_.end()) flags[2] = kSignal + number;
  if (around_.world.rank() == 0) {
    const bool minutes =
        config_.every_minutes() > 0 && seconds_between(last_begun_, now) >= 60 * config_.every_minutes();
    flags[1] = take_file("CHECKPOINT") || minutes;
    flags[2] = std::max(flags[2], take_file("STOP") ? kStopFile : limit_is_near() ? kTimeLimit : kNoStop);
    flags[3] = around_.lost && around_.lost();
  }
  around_.world.all_reduce_max(Tensor(std::span<double>(flags), Shape{4}));
  if (flags[3] > 0)
    throw IoError(around_.run_directory +
                  ": another process took this run over, as this one gave no sign of life for too long; it writes "
                  "nothing more");
  if (flags[0] > 0) last_signal_ = now;
  const bool regular = config_.every_steps() > 0 && step % config_.every_steps() == 0;
  const std::string stop = last ? "" : stop_reason(flags[2]);
  return {regular || flags[0] > 0 || flags[1] > 0 || !stop.empty() || (last && config_.save_last()), stop};
}

bool Saving::step_done(int64_t step, bool last) {
  const Due due = agree(step, last);
  poll(false);
  if (due.save) {
    const bool wait = !due.stop.empty() || last || !config_.asynchronous();
    if (saver_.in_flight()) {
      // It could be left out, but then steps that are to be kept for ever would be missing.
      if (!wait) {
        around_.console.warn(
            "warning: step {} is to be saved, and step {} is not on the disk yet: training waits for it", step,
            saver_.step());
      }
      poll(true);
    }
    begin(step);
    if (wait) poll(true);
  }
  last_step_ = Clock::now();
  if (due.stop.empty()) return false;
  if (saved_step_ != step) {
    around_.console.error("warning: {} asks to stop, but step {} is not saved: training goes on", due.stop, step);
    return false;
  }
  around_.console.info("step {}  stopped, as {} asks; start again to go on", step, due.stop);
  return true;
}

void Saving::begin(int64_t step) {
  last_begun_ = Clock::now();
  try {
    SaveInfo info = around_.info();
    info.directory = directory_;
    info.id = "run";
    saver_.start(around_.state(), info);
  } catch (const IoError& error) {
    failed(step, error.what());
  }
}

void Saving::poll(bool wait) {
  if (saver_.in_flight()) {
    try {
      const std::optional<Saved> saved = wait ? saver_.finish() : saver_.poll();
      if (saved) published(*saved);
    } catch (const IoError& error) {
      failed(saver_.step(), error.what());
    }
  }
  if (const std::optional<Reread> reread = rereader_.poll()) reread_done(*reread);
}

void Saving::published(const Saved& saved) {
  const double seconds = seconds_between(last_begun_, Clock::now());
  longest_save_ = std::max(longest_save_, seconds);
  saved_step_ = saver_.step();
  if (around_.world.rank() == 0)
    around_.console.info("step {}  saved {} in {} ({})", saved_step_, saved.path, format_short_duration(seconds),
                         format_bytes(static_cast<double>(bytes_on_disk(storage_, saved))));
  unread_.push_back(saved.path);
  read_next();
}

void Saving::read_next() {
  if (rereader_.in_flight() || unread_.empty()) return;
  rereader_.start(unread_.front());
  unread_.pop_front();
}

// The same on every rank, and older checkpoints are as they were: training is worth more than this save.
void Saving::failed(int64_t step, const std::string& why) {
  around_.console.error("warning: step {} was not saved, training goes on: {}", step, why);
  error_ = why;
}

void Saving::reread_done(const Reread& reread) {
  read_next();
  if (!reread.ok()) {
    around_.console.error("warning: {} was read again, and is not what was saved: {}", reread.path, reread.problem);
    return;
  }
  try {
    prune(around_.world, storage_, directory_, {.keep_last = config_.keep_last(), .keep_every = config_.keep_every()});
  } catch (const IoError& error) {
    around_.console.error("warning: older checkpoints stay: {}", error.what());
  }
}

void Saving::finish() {
  if (saver_.in_flight()) poll(true);
  while (rereader_.in_flight()) reread_done(rereader_.finish());
}

}  // namespace tessera
