#include "launch/measure/checkpoint_speed.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "checkpoint/format/names.h"
#include "checkpoint/load.h"
#include "checkpoint/saver.h"
#include "launch/measure/gemm_peak.h"
#include "parallel/comm/agreement.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

constexpr int64_t kTensorBytes = int64_t{64} << 20;
constexpr int64_t kRowElements = 1023;  // blocks end within rows

using Clock = std::chrono::steady_clock;

// The state of a rank: float32 tensors of which it holds `cuts` intervals each.
class BenchState {
 public:
  // Part p of `parts` of every tensor belongs to rank p % ranks.
  BenchState(int64_t bytes, int parts, int rank, int ranks) {
    const auto count = static_cast<int>(std::max<int64_t>(1, (bytes + kTensorBytes / 2) / kTensorBytes));
    const Shape shape{bytes / count / (4 * kRowElements), kRowElements};
    for (int t = 0; t < count; ++t) {
      for (int part = rank; part < parts; part += ranks) {
        StateSlice& slice = state_.slices.emplace_back();
        slice.name = fmt::format("{}tensor.{}", kMasterPrefix, t);
        slice.global_shape = shape;
        slice.rows = shard({0, shape[0]}, parts, part);
        elements_ += slice.rows.size() * kRowElements;
      }
    }
    memory_ = std::make_unique<float[]>(static_cast<size_t>(elements_));
    float* next = memory_.get();
    for (StateSlice& slice : state_.slices) {
      const Shape own = shape.with_rows(slice.rows.size());
      slice.data = Tensor(next, own, DType::F32);
      next += own.size();
    }
    state_.cursors.numbers = {{"step", 1}};
  }

  void fill(uint64_t seed) {
    const RandomStream random(seed, "state");
    for (int64_t i = 0; i < elements_; i += 2) {
      const uint64_t bits = random.bits(static_cast<uint64_t>(i));
      memory_[i] = static_cast<float>(bits & 0xffffff);
      if (i + 1 < elements_) memory_[i + 1] = static_cast<float>(bits >> 40);
    }
  }

  State& state() { return state_; }
  std::span<std::byte> bytes() {
    return std::as_writable_bytes(std::span(memory_.get(), static_cast<size_t>(elements_)));
  }

 private:
  State state_;
  std::unique_ptr<float[]> memory_;
  int64_t elements_ = 0;
};

class Measurement {
 public:
  Measurement(Session& session, const CheckpointSpeedOptions& options)
      : world_(session.world),
        options_(options),
        context_({.threads = session.threads}),
        state_(options.bytes, world_.size(), world_.rank(), world_.size()),
        other_(options.bytes, 2 * world_.size() + 1, (world_.rank() + 1) % world_.size(), world_.size()) {
    state_.fill(static_cast<uint64_t>(world_.rank()) + 1);
    other_.fill(0);
  }

  CheckpointSpeed run() {
    CheckpointSpeed speed;
    together(world_, [&] { storage_.create_directories(options_.directory); });
    Saver blocking(world_, storage_, {});
    Saver background(world_, storage_, {.staging_bytes = options_.staging_bytes});
    blocking.plan(state_.state());
    background.plan(state_.state());
    speed.bytes = blocking.bytes();
    speed.staging_bytes = world_.sum(background.staging_bytes());
    std::vector<double> plain_write, save, copy_stall, overlapped_stall, asynchronous, plain_read, load, load_other;
    // One of each in turn: whatever else the machine does meets all of them alike. The first round warms up.
    for (int round = 0; round <= options_.repeats; ++round) {
      plain_write.push_back(timed([&] { write_plainly(); }));
      save.push_back(timed([&] {
        blocking.start(state_.state(), info());
        blocking.finish();
      }));
      plain_read.push_back(cold([&] { read_plainly(); }));
      load.push_back(cold([&] { tessera::load(world_, storage_, checkpoint(), state_.state()); }));
      load_other.push_back(cold([&] { tessera::load(world_, storage_, checkpoint(), other_.state()); }));
      double stall = 0;
      save_in_background(background, 0, stall);
      copy_stall.push_back(stall);
      asynchronous.push_back(save_in_background(background, save.back(), stall));
      overlapped_stall.push_back(stall);
    }
    speed.plain_write = median(plain_write);
    speed.save = median(save);
    speed.copy_stall = median(copy_stall);
    speed.overlapped_stall = median(overlapped_stall);
    speed.asynchronous = median(asynchronous);
    speed.plain_read = median(plain_read);
    speed.load = median(load);
    speed.load_other = median(load_other);
    world_.barrier();
    together(world_, [&] {
      storage_.remove_tree(plain_file());
      if (world_.rank() == 0) storage_.remove_tree(options_.directory + "/checkpoints");
    });
    return speed;
  }

 private:
  static double median(std::vector<double> values) {
    values.erase(values.begin());
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  // Seconds of the slowest rank.
  double timed(const std::function<void()>& work) {
    world_.barrier();
    const Clock::time_point start = Clock::now();
    work();
    return world_.max(std::chrono::duration<double>(Clock::now() - start).count());
  }

  double cold(const std::function<void()>& work) {
    storage_.open(plain_file())->forget();
    if (world_.rank() == 0) {
      for (const auto& entry : storage_.list(checkpoint())) storage_.open(checkpoint() + "/" + entry.name)->forget();
    }
    return timed(work);
  }

  std::string plain_file() const { return fmt::format("{}/plain-{}", options_.directory, world_.rank()); }
  std::string checkpoint() const { return options_.directory + "/checkpoints/" + step_name(1); }

  SaveInfo info() const {
    SaveInfo info;
    info.directory = options_.directory + "/checkpoints";
    info.id = "bench";
    info.step = 1;
    info.layout = fmt::format("{} ranks", world_.size());
    return info;
  }

  // As little as possible besides write() and fsync(). The file before stays until the new one is there, as a
  // checkpoint does: where a machine's free memory is slow to come by, that alone can halve the speed.
  void write_plainly() {
    const std::string next = plain_file() + ".next";
    const int file = ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool fine = file >= 0;
    for (auto rest = state_.bytes(); fine && !rest.empty();) {
      const ssize_t written = ::write(file, rest.data(), std::min<size_t>(rest.size(), kBlockBytes));
      fine = written > 0;
      if (fine) rest = rest.subspan(static_cast<size_t>(written));
    }
    fine = fine && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    fine = fine && ::rename(next.c_str(), plain_file().c_str()) == 0;
    if (!fine) throw IoError(fmt::format("cannot write {}: {}", plain_file(), std::strerror(errno)));
  }

  void read_plainly() {
    const auto file = storage_.open(plain_file());
    const auto bytes = state_.bytes();
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(kBlockBytes)) {
      file->read(static_cast<int64_t>(at), bytes.subspan(at, std::min<size_t>(bytes.size() - at, kBlockBytes)));
    }
  }

  // Computes for about `computing` seconds before the state is to change. Returns the whole save's seconds.
  double save_in_background(Saver& saver, double computing, double& stall) {
    return timed([&] {
      const Clock::time_point start = Clock::now();
      saver.start(state_.state(), info());
      double waited = std::chrono::duration<double>(Clock::now() - start).count();
      Clock::time_point changes = Clock::now();
      while (std::chrono::duration<double>(changes - start).count() < computing) {
        measure_gemm(context_, DType::F32, 512);
        changes = Clock::now();
      }
      saver.state_may_change();
      waited += std::chrono::duration<double>(Clock::now() - changes).count();
      saver.finish();
      stall = world_.max(waited);
    });
  }

  Comm& world_;
  CheckpointSpeedOptions options_;
  Context context_;
  PosixStorage storage_;
  BenchState state_, other_;
};

}  // namespace

CheckpointSpeed measure_checkpoint_speed(Session& session, const CheckpointSpeedOptions& options) {
  return Measurement(session, options).run();
}

}  // namespace tessera
