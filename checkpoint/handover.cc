#include "checkpoint/handover.h"

#include <fmt/core.h>

#include <cstring>
#include <map>
#include <set>

#include "parallel/comm/agreement.h"
#include "tensor/memory/arena.h"

namespace tessera {
namespace {

// What one rank sends to another: rows of a tensor, as the numbers of the kept part and of the wanted slice.
struct Transfer {
  int from, to;
  size_t kept, wanted;
  Interval rows;
};

// The same on every rank, and in the same order: by tensor, then by who keeps, then by who wants.
std::vector<Transfer> transfers(const HeldByRank& kept, const HeldByRank& wanted) {
  std::map<std::string, std::vector<std::pair<int, size_t>>> keepers;
  for (size_t rank = 0; rank < kept.size(); ++rank) {
    for (size_t i = 0; i < kept[rank].size(); ++i) keepers[kept[rank][i].tensor].emplace_back(rank, i);
  }
  std::map<std::string, std::vector<Transfer>> by_tensor;
  for (size_t rank = 0; rank < wanted.size(); ++rank) {
    for (size_t i = 0; i < wanted[rank].size(); ++i) {
      const HeldRows& slice = wanted[rank][i];
      for (const auto& [from, part] : keepers[slice.tensor]) {
        const Interval rows = intersect(kept[static_cast<size_t>(from)][part].rows, slice.rows);
        if (!rows.empty()) by_tensor[slice.tensor].push_back({from, static_cast<int>(rank), part, i, rows});
      }
    }
  }
  std::vector<Transfer> all;
  for (const auto& [tensor, list] : by_tensor) all.insert(all.end(), list.begin(), list.end());
  return all;
}

// The slices under names that tell tensors of other shapes and dtypes apart.
State described(const State& state) {
  State result;
  for (const StateSlice& slice : state.slices) {
    result.slices.push_back(slice);
    result.slices.back().name = fmt::format("{} {} {}", slice.name, slice.global_shape.str(), name(slice.data.dtype()));
  }
  return result;
}

// Throws unless each tensor that is kept is wanted by some rank. The other way round, each rank sees by itself.
void check_wanted(const HeldByRank& kept, const HeldByRank& wanted) {
  std::set<std::string> places;
  for (const auto& of_rank : wanted) {
    for (const HeldRows& slice : of_rank) places.insert(slice.tensor);
  }
  for (const auto& of_rank : kept) {
    for (const HeldRows& part : of_rank) {
      if (places.count(part.tensor) == 0)
        throw CheckpointError(
            fmt::format("the state that is handed over has a tensor {} that there is no place for: "
                        "it is of another model or optimizer",
                        part.tensor));
    }
  }
}

Tensor rows_of(const Tensor& data, const Interval& held, const Interval& rows) {
  return data.rows(rows.begin - held.begin, rows.end - held.begin);
}

}  // namespace

Handover::Handover(Comm& world, const State& state, const HostCopy& copy) : world_(world), cursors_(state.cursors) {
  const HeldByRank held = gather_held(world, state);
  const std::vector<std::vector<Interval>> shares = share_rows(held, world.rank());
  State kept;
  together(world, [&] {
    int64_t bytes = 0;
    const auto each = [&](const auto& use) {
      for (size_t i = 0; i < state.slices.size(); ++i) {
        const StateSlice& slice = state.slices[i];
        for (const Interval& rows : shares[i]) use(slice, rows, slice.global_shape.with_rows(rows.size()));
      }
    };
    each([&](const StateSlice& slice, const Interval&, const Shape& shape) {
      bytes += Arena::bytes(shape, slice.data.dtype());
    });
    memory_ = Buffer(Device::Cpu, bytes, "a state on its way to another layout");
    auto* next = static_cast<std::byte*>(memory_.data());
    each([&](const StateSlice& slice, const Interval& rows, const Shape& shape) {
      const Tensor to(next, shape, slice.data.dtype());
      const ConstTensor from = rows_of(slice.data, slice.rows, rows);
      if (copy) {
        copy(from, 0, {next, static_cast<size_t>(to.bytes())});
      } else {
        std::memcpy(next, from.data(), static_cast<size_t>(to.bytes()));
      }
      kept_.push_back({rows, to});
      kept.slices.push_back({slice.name, slice.global_shape, rows, to});
      next += Arena::bytes(shape, slice.data.dtype());
    });
  });
  kept_by_rank_ = gather_held(world, described(kept));
}

void Handover::into(State& state) {
  const HeldByRank wanted = gather_held(world_, described(state));
  check_wanted(kept_by_rank_, wanted);
  const std::vector<Transfer> all = transfers(kept_by_rank_, wanted);
  const int rank = world_.rank();
  together(world_, [&] {
    std::map<size_t, int64_t> rows_found;
    for (const Transfer& transfer : all) {
      if (transfer.to == rank) rows_found[transfer.wanted] += transfer.rows.size();
    }
    for (size_t i = 0; i < state.slices.size(); ++i) {
      const StateSlice& slice = state.slices[i];
      if (rows_found[i] != slice.rows.size())
        throw CheckpointError(
            fmt::format("the state that is handed over lacks rows {} of tensor {} {} in {}: it is of "
                        "another model or optimizer",
                        slice.rows.str(), slice.name, slice.global_shape.str(), name(slice.data.dtype())));
    }
  });
  for (size_t i = 0; i < all.size();) {
    // The transfers of one tensor at a time: a rank waits only for ranks that are at the same one.
    const std::string& tensor = wanted[static_cast<size_t>(all[i].to)][all[i].wanted].tensor;
    std::vector<Request> requests;
    for (; i < all.size() && wanted[static_cast<size_t>(all[i].to)][all[i].wanted].tensor == tensor; ++i) {
      const Transfer& transfer = all[i];
      if (transfer.to == rank) {
        const StateSlice& slice = state.slices[transfer.wanted];
        requests.push_back(world_.receive(rows_of(slice.data, slice.rows, transfer.rows), transfer.from));
      }
      if (transfer.from == rank) {
        const Kept& part = kept_[transfer.kept];
        requests.push_back(world_.send(rows_of(part.data, part.rows, transfer.rows), transfer.to));
      }
    }
    for (Request& request : requests) request.wait();
  }
  state.cursors = cursors_;
}

}  // namespace tessera
