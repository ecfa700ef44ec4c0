#include "scaling/planning/traffic.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "optim/ownership.h"
#include "optim/whole_gradients.h"
#include "parallel/comm/all_reduce_bytes.h"
#include "parallel/schedule/gathers.h"
#include "scaling/planning/stages.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr AxisSet kTokenAxes{Axis::Dp, Axis::Cp}, kLossAxes{Axis::Pp, Axis::Dp, Axis::Cp};

// Calls over tp that gather or scatter all tokens [slots, hidden].
struct Exchanges {
  int64_t gathers, scatters;
  int64_t calls() const { return gathers + scatters; }
};

// Of a block: two layers that gather their input and two that scatter their output, with their backwards.
constexpr Exchanges kForward{2, 2}, kFullRecompute{2, 1}, kBackwardInput{2, 2}, kBackwardWeight{4, 0}, kBackward{4, 2};

class StepTraffic {
 public:
  StepTraffic(const Layout& layout, int rank)
      : layout_(layout),
        rank_(rank),
        shape_(layout.shape(rank)),
        actions_(layout.schedule.ranks.at(layout.pipeline_rank(rank))),
        stages_(make_stages(layout, rank, {})),
        parameters_(parameters_of(stages_)) {
    for (const auto& stage : stages_) costs_[stage->index()] = stage->costs();
    exchange_ = tp_sent(shape_, shape_.slots * shape_.hidden);
    check_exchanges();
  }

  std::vector<AxisTraffic> count() {
    add_number(kTokenAxes);  // target tokens
    for (size_t i = 0; i < actions_.size(); ++i) add_action(i);
    std::vector<AxisTraffic> traffic;
    for (const auto& [group, of_group] : groups_) {
      if (of_group.total_bytes() > 0) traffic.push_back(of_group);
    }
    return traffic;
  }

 private:
  void add(const std::string& group, Collective kind, int64_t bytes) {
    AxisTraffic& traffic = groups_[group];
    traffic.group = group;
    traffic.bytes[static_cast<int>(kind)] += bytes;
  }
  void add(AxisSet axes, Collective kind, int64_t bytes) { add(axes.str(), kind, bytes); }
  void add_all_reduce(AxisSet axes, int64_t elements, DType dtype) {
    const MeshShape& mesh = layout_.mesh;
    add(axes, Collective::AllReduce, all_reduce_bytes(elements, dtype, mesh.position(axes, rank_), mesh.extent(axes)));
  }
  void add_number(AxisSet axes) { add_all_reduce(axes, 1, DType::F64); }
  void add_exchanges(Exchanges exchanges) {
    add({Axis::Tp}, Collective::AllGather, exchanges.gathers * exchange_);
    add({Axis::Tp}, Collective::ReduceScatter, exchanges.scatters * exchange_);
  }
  void add_context(int64_t bytes) { add({Axis::Cp}, Collective::Send, bytes); }

  // A layer that communicates otherwise must not be counted as if it did not.
  void check_exchanges() const {
    for (const auto& [stage, costs] : costs_) {
      for (const Cost& block : costs.blocks) {
        TESSERA_CHECK_EQ(block.forward_sent, kForward.calls() * exchange_, "a block's FORWARD over tp");
        TESSERA_CHECK_EQ(block.backward_input_sent, kBackwardInput.calls() * exchange_, "its BACKWARD_INPUT");
        TESSERA_CHECK_EQ(block.backward_weight_sent, kBackwardWeight.calls() * exchange_, "its BACKWARD_WEIGHT");
        TESSERA_CHECK_EQ(block.backward_sent, kBackward.calls() * exchange_, "both in a row");
      }
    }
  }

  const StagePart& part(const Action& action) const { return layout_.parts.at(action.stage); }
  BlockRange blocks(const Action& action) const {
    return {action.blocks.first, std::min(action.blocks.last, part(action).blocks())};
  }

  void add_action(size_t at) {
    const Action& action = actions_[at];
    switch (action.kind) {
      case ActionKind::Forward:
        return add_forward(action);
      case ActionKind::Recompute:
        return add_recompute(action);
      case ActionKind::BackwardInput:
        return add_backward_input(at);
      case ActionKind::BackwardWeight:
        return add_backward_weight(at);
      case ActionKind::SendForward:
      case ActionKind::SendBackward:
        return add({Axis::Pp}, Collective::Send, shape_.local_slots() * shape_.hidden * size_of(shape_.compute));
      case ActionKind::Gather:
        return add_gather(at);
      case ActionKind::Reduce:
        return layout_.zero_stage == 0 ? add_whole_reduce(at) : add_sharded_reduce(at);
      case ActionKind::Norm:
        return add_norm();
      case ActionKind::Step:
        return add_step();
      case ActionKind::ReceiveForward:
      case ActionKind::ReceiveBackward:
      case ActionKind::Offload:
      case ActionKind::Fetch:
      case ActionKind::Release:
        return;
    }
  }

  void add_forward(const Action& action) {
    const PartCosts& costs = costs_.at(action.stage);
    const BlockRange range = blocks(action);
    if (range.first == 0) add({Axis::Tp}, Collective::ReduceScatter, costs.embedding.forward_sent);
    for (int block = range.first; block < range.last; ++block) {
      add_exchanges(kForward);
      add_context(costs.blocks[block].most_exchanged.forward);
    }
    if (!part(action).last() || range.last < part(action).blocks()) return;
    constexpr Exchanges kHead{1, 1};
    add_exchanges(kHead);
    add({Axis::Tp}, Collective::AllReduce, costs.head.forward_sent - kHead.calls() * exchange_);
  }

  void add_recompute(const Action& action) {
    const BlockRange range = blocks(action);
    for (int block = range.first; block < range.last; ++block) {
      const Recompute mode = layout_.recompute[part(action).first_block + block];
      if (makes_again(mode, SavedPart::Projected)) add_exchanges(kFullRecompute);
      // Attention's output is derived.
      if (makes_again(mode, SavedPart::Derived))
        add_context(costs_.at(action.stage).blocks[block].most_exchanged.forward);
    }
  }

  // Whether BACKWARD_INPUT and BACKWARD_WEIGHT of the same blocks run as one, which gathers some tensors once for both
  // (parallel/pipeline.h).
  bool in_a_row(size_t at) const {
    if (layout_.overlap == Overlap::Off || at + 1 >= actions_.size()) return false;
    Action weight = actions_[at];
    weight.kind = ActionKind::BackwardWeight;
    return actions_[at].kind == ActionKind::BackwardInput && actions_[at + 1] == weight;
  }

  void add_backward_input(size_t at) {
    const BlockRange range = blocks(actions_[at]);
    for (int block = range.first; block < range.last; ++block) {
      add_exchanges(in_a_row(at) ? kBackward : kBackwardInput);
      add_context(costs_.at(actions_[at].stage).blocks[block].most_exchanged.backward);
    }
  }

  void add_backward_weight(size_t at) {
    const BlockRange range = blocks(actions_[at]);
    const bool counted = at > 0 && in_a_row(at - 1);  // with BACKWARD_INPUT
    for (int block = range.first; block < range.last && !counted; ++block) add_exchanges(kBackwardWeight);
    if (range.first == 0)
      add({Axis::Tp}, Collective::AllGather, costs_.at(actions_[at].stage).embedding.backward_weight_sent);
  }

  static int64_t row_elements(const Parameter& parameter) { return parameter.global_shape.with_rows(1).size(); }
  Ownership owned(const Parameter& parameter) const {
    return ownership(parameter, layout_.mesh, rank_, layout_.zero_stage);
  }
  // Of one of the equal parts that the sharers' messages have.
  static int64_t part_elements(const Parameter& parameter) {
    return shard_rows(parameter.rows.size(), parameter.parts) * row_elements(parameter);
  }

  // The rows that other ranks own of a parameter's compute copy: a whole matrix comes from its owner.
  void add_weights(const Parameter& parameter) {
    const Ownership own = owned(parameter);
    const int64_t element = size_of(shape_.compute);
    if (own.owner < 0) {
      add(own.sharers, Collective::AllGather, part_elements(parameter) * (own.parts - 1) * element);
    } else if (own.part == own.owner && own.parts > 1) {
      add(own.sharers, Collective::Broadcast, parameter.rows.size() * row_elements(parameter) * element);
    }
  }

  void add_gather(size_t at) {
    const BlockRange range = blocks(actions_[at]);
    const auto among = [&](int block) { return range.first <= block && block < range.last; };
    const bool for_forward = gather_for(actions_, at) == GatherFor::Forward;
    for (const Parameter* parameter : parameters_) {
      const bool read = among(parameter->block) || among(parameter->head_block);
      if (parameter->stage != actions_[at].stage || !read) continue;
      if (for_forward || !parameter->forward_reads_alone) add_weights(*parameter);
    }
  }

  void add_whole_reduce(size_t at) {
    if (reduce_turn(actions_, at) != ReduceTurn::Last) return;
    for (const GradientMessage& message :
         gradient_messages(parameters_, shape_.compute, actions_[at].stage, blocks(actions_[at])))
      add_all_reduce(message.group, message.elements, shape_.accumulation());
  }

  void add_sharded_reduce(size_t at) {
    const BlockRange range = blocks(actions_[at]);
    const bool last = reduce_turn(actions_, at) == ReduceTurn::Last;
    for (const Parameter* parameter : parameters_) {
      const bool among =
          parameter->stage == actions_[at].stage && range.first <= parameter->block && parameter->block < range.last;
      const bool kept = layout_.zero_stage == 1 || !parameter->weight_adds_alone;
      if (!among || (kept && !last)) continue;
      const Ownership own = owned(*parameter);
      const int64_t elements = part_elements(*parameter);
      add(own.sharers, layout_.wire == WireFormat::Bf16 ? Collective::AllToAll : Collective::ReduceScatter,
          GradientWire::sent(layout_.wire, shape_.accumulation(), elements, own.parts));
      if (own.owner >= 0 && own.part != own.owner)
        add(own.sharers, Collective::Send, elements * size_of(shape_.accumulation()));
      if (last && own.copies.has(Axis::ZeroReplica))
        add_all_reduce({Axis::ZeroReplica}, own.rows.size() * row_elements(*parameter), shape_.accumulation());
    }
  }

  void add_norm() {
    add_number(layout_.mesh.pp == 1 ? kTokenAxes : kLossAxes);
    for (const Parameter* parameter : parameters_) {
      if (parameter->replicas.has(Axis::TiedEnds))
        add_all_reduce({Axis::TiedEnds}, owned(*parameter).rows.size() * row_elements(*parameter),
                       shape_.accumulation());
    }
    add("world", Collective::AllReduce,
        all_reduce_bytes(parameters_.front()->ordinals, DType::F64, rank_, layout_.mesh.size()));
  }

  // Stage 3 gathers weights where they are used.
  void add_step() {
    if (layout_.zero_stage == 0 || layout_.zero_stage == 3) return;
    for (const Parameter* parameter : parameters_) {
      if (parameter->tied_to == nullptr) add_weights(*parameter);
    }
  }

  const Layout& layout_;
  int rank_;
  ModelShape shape_;
  const Schedule& actions_;
  std::vector<std::unique_ptr<Transformer>> stages_;
  Parameters parameters_;
  std::map<int, PartCosts> costs_;  // by stage
  int64_t exchange_ = 0;            // bytes of one of Exchanges' calls
  std::map<std::string, AxisTraffic> groups_;
};

}  // namespace

int64_t AxisTraffic::total_bytes() const { return std::accumulate(bytes.begin(), bytes.end(), int64_t{0}); }

std::vector<AxisTraffic> step_traffic(const Layout& layout, int rank) { return StepTraffic(layout, rank).count(); }

}  // namespace tessera
