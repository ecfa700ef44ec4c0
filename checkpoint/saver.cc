#include "checkpoint/saver.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "checkpoint/format/names.h"

namespace tessera {
namespace {

void check_info(const SaveInfo& info) {
  const bool plain = std::all_of(info.id.begin(), info.id.end(),
                                 [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_'; });
  TESSERA_CHECK(plain && !info.id.empty(), "the run's id is part of a file name: " + info.id);
  TESSERA_CHECK(info.step >= 0, "steps are counted from 0");
}

std::vector<DType> dtypes_of(const State& state) {
  std::vector<DType> dtypes;
  for (const StateSlice& slice : state.slices) dtypes.push_back(slice.data.dtype());
  return dtypes;
}

// Every rank's contribution, on rank 0.
std::vector<Contribution> gather(Comm& world, Contribution own) {
  std::vector<Contribution> all;
  if (world.rank() != 0) {
    send_text(world, own.manifest, 0);
    send_text(world, own.index, 0);
    return all;
  }
  all.push_back(std::move(own));
  for (int rank = 1; rank < world.size(); ++rank) {
    Contribution& theirs = all.emplace_back();
    theirs.manifest = receive_text(world, rank);
    theirs.index = receive_text(world, rank);
  }
  return all;
}

}  // namespace

Saver::Saver(Comm& world, Storage& storage, SaverOptions options)
    : world_(world), storage_(storage), options_(std::move(options)), staging_(options_.copy) {}

Saver::~Saver() {
  if (thread_.joinable()) thread_.join();
}

std::string Saver::temporary() const { return join(info_.directory, temporary_name(info_.step, info_.id)); }

void Saver::plan(const State& state) {
  const std::vector<HeldRows> own = held_rows(state);
  const bool changed = !held_ || (*held_)[world_.rank()] != own || dtypes_ != dtypes_of(state);
  if (world_.max(changed ? 1.0 : 0.0) == 0) return;
  held_.reset();
  HeldByRank held = gather_held(world_, state);
  together(world_, [&] {
    shares_ = share_rows(held, world_.rank());
    dtypes_ = dtypes_of(state);
    layout_ = std::make_unique<ShardLayout>(pieces_to_write(state, shares_));
    staging_.reserve(options_.staging_bytes, *layout_);
  });
  bytes_ = world_.sum(layout_->piece_bytes());
  held_ = std::move(held);
}

void Saver::start(const State& state, const SaveInfo& info) {
  TESSERA_CHECK(!in_flight_, "one save is in flight at a time");
  state_ = state;
  info_ = info;
  failure_ = nullptr;
  std::optional<RankFailure> failure = try_together(world_, [&] { check_info(info); });
  if (failure) throw_failure(*failure);
  plan(state);
  failure = try_together(world_, [&] {
    pieces_ = pieces_to_write(state, shares_);
    if (world_.rank() != 0) return;
    reach(options_.failpoint, "begun");
    prepare_directory(storage_, info);
    reach(options_.failpoint, "directory_made");
    check_free_space(storage_, temporary(), bytes_);
  });
  if (failure) give_up(*failure);
  written_ = false;
  staging_.begin(*layout_, pieces_);
  thread_ = std::thread([this] { write(); });
  in_flight_ = true;
}

// The thread's work.
void Saver::write() {
  try {
    shard_ = write_shard(
        storage_, temporary(), world_.rank(), *layout_, [this](const ShardLayout::Block&) { return staging_.take(); },
        options_.failpoint);
  } catch (...) {
    failure_ = std::current_exception();
  }
  staging_.done();
  written_ = true;
}

std::optional<Saved> Saver::poll() {
  if (!in_flight_ || world_.max(written_ ? 0.0 : 1.0) > 0) return std::nullopt;
  return publish();
}

Saved Saver::finish() {
  TESSERA_CHECK(in_flight_, "there is a save to finish");
  return publish();
}

Saved Saver::publish() {
  thread_.join();
  in_flight_ = false;
  if (auto failure = try_publish()) give_up(std::move(*failure));
  return {join(info_.directory, step_name(info_.step)), bytes_};
}

std::optional<RankFailure> Saver::try_publish() {
  Contribution own;
  const auto failure = try_together(world_, [&] {
    if (failure_) std::rethrow_exception(failure_);
    own = contribution(state_, info_, shard_);
  });
  if (failure) return failure;
  const auto contributions = gather(world_, std::move(own));
  return try_together(world_, [&] {
    if (world_.rank() != 0) return;
    reach(options_.failpoint, "all_written");
    commit(storage_, temporary(), info_, contributions, options_.failpoint);
  });
}

void Saver::give_up(RankFailure failure) {
  failure.message = fmt::format("step {} is not saved: {}", info_.step, failure.message);
  const auto leftover = try_together(world_, [&] {
    if (world_.rank() == 0) storage_.remove_tree(temporary());
  });
  if (leftover) failure.message += fmt::format("; and what was written of it stays: {}", leftover->message);
  throw_failure(failure);
}

}  // namespace tessera
