#include "model/transformer.h"

#include <algorithm>

#include "model/sublayers.h"
#include "tensor/context/copy.h"
#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

Head::Tie tie_of(const ModelShape& shape, const Transformer::Options& options) {
  if (!shape.tied) return Head::Tie::Free;
  if (options.part.stages == 1) return Head::Tie::SameStage;
  return options.ends_together ? Head::Tie::OtherStage : Head::Tie::OtherRank;
}

// How many parameters the layers before each one have, and last all of them: layers of equal kinds have as many.
std::vector<int64_t> parameters_before(const ModelShape& shape) {
  std::vector<std::pair<LayerKind, int64_t>> counted;
  std::vector<int64_t> before{0};
  for (int layer = 0; layer < shape.blocks(); ++layer) {
    const LayerKind& kind = shape.layers[layer];
    auto known = std::find_if(counted.begin(), counted.end(), [&](const auto& count) { return count.first == kind; });
    if (known == counted.end()) known = counted.insert(known, {kind, parameter_count(shape, layer)});
    before.push_back(before.back() + known->second);
  }
  return before;
}

}  // namespace

Transformer::Transformer(const ModelShape& shape, Options options) : shape_(shape), options_(std::move(options)) {
  const StagePart& part = options_.part;
  TESSERA_CHECK(0 <= part.first_block && part.first_block < part.last_block && part.last_block <= shape.blocks(),
                "a stage has blocks of the model");
  if (options_.recompute.empty()) options_.recompute.assign(shape.layers.size(), Recompute::None);
  TESSERA_CHECK_EQ(options_.recompute.size(), shape.layers.size(), "modes of recomputation by block");
  const Head::Tie tie = tie_of(shape, options_);
  if (first()) {
    embedding_.emplace(shape);
    // Another pipeline rank makes the same updates to its copy.
    if (tie == Head::Tie::OtherRank) embedding_->table().replicas = embedding_->table().replicas.with(Axis::TiedEnds);
  }
  for (int i = part.first_block; i < part.last_block; ++i)
    blocks_.push_back(std::make_unique<Block>(shape, i, options_.recompute[i]));
  if (last()) {
    Transformer* holder = tie == Head::Tie::SameStage    ? this
                          : tie == Head::Tie::OtherStage ? options_.embedding_stage
                                                         : nullptr;
    TESSERA_CHECK(tie != Head::Tie::OtherStage || (holder != nullptr && holder->first()), "the embedding's stage");
    head_.emplace(shape, tie, holder != nullptr ? &holder->embedding_->table() : nullptr);
  }
  number_parameters();
}

// Numbers as if one rank held the whole model, in this order: table, positions, blocks, final norm, head.
void Transformer::number_parameters() {
  constexpr int64_t kBeforeBlocks = 2, kAfterBlocks = 3;  // norms have up to two parameters
  const std::vector<int64_t> before = parameters_before(shape_);
  const int64_t after_blocks = kBeforeBlocks + before.back();
  const auto add = [&](auto& layer, int64_t ordinal, int block) {
    const size_t begin = parameters_.size();
    layer.add_parameters(parameters_);
    for (size_t i = begin; i < parameters_.size(); ++i) {
      Parameter& parameter = *parameters_[i];
      // A tied table has one number wherever it lies.
      parameter.ordinal = parameter.name == "embedding" ? 0 : ordinal + static_cast<int64_t>(i - begin);
      parameter.ordinals = after_blocks + kAfterBlocks;
      parameter.stage = options_.part.stage;
      parameter.block = block;
    }
  };
  if (embedding_) add(*embedding_, 0, 0);
  for (int i = 0; i < blocks(); ++i) add(*blocks_[i], kBeforeBlocks + before[options_.part.first_block + i], i);
  if (head_) add(*head_, after_blocks, blocks() - 1);
  if (head_ && embedding_ && shape_.tied) {
    embedding_->table().head_block = blocks() - 1;
    embedding_->table().weight_adds_alone = false;
  }
}

std::span<const LayerKind> Transformer::layers() const {
  return std::span(shape_.layers).subspan(options_.part.first_block, options_.part.blocks());
}

int64_t Transformer::weights_bytes() const {
  int64_t bytes = 0;
  if (options_.weights_elsewhere) return bytes;
  for (const Parameter* parameter : parameters_) {
    if (parameter->tied_to == nullptr) bytes += Arena::bytes(parameter->padded_shape(), shape_.compute);
  }
  return bytes;
}

int64_t Transformer::slot_bytes() const {
  Arena tally = Arena::tally(options_.device), lists = Arena::tally();
  take_slot(tally, lists);
  return tally.used();
}

int64_t Transformer::list_bytes() const {
  Arena tally = Arena::tally(options_.device), lists = Arena::tally();
  take_slot(tally, lists);
  return lists.used();
}

int64_t Transformer::area_bytes() const {
  int64_t most = 0;
  for (const auto& block : blocks_) most = std::max(most, block->saved_bytes(Block::Portion::MadeAgain));
  return most;
}

int64_t Transformer::activations_bytes() const {
  return options_.slots * slot_bytes() + options_.areas * area_bytes() + (head_ ? Arena::bytes({1}, DType::F64) : 0);
}

int64_t Transformer::workspace_bytes(Target target) const {
  int64_t bytes = 0;
  if (embedding_) bytes = std::max(bytes, embedding_->workspace());
  if (head_) bytes = std::max(bytes, head_->workspace(target));
  const int64_t gathers = TokenGathers::workspace(shape_.tp, residual_shape(), shape_.compute, options_.overlap);
  bytes = std::max(bytes, gathers);
  for (const auto& block : blocks_) {
    // Forward has what it does not keep in the workspace.
    const int64_t not_kept = block->saved_bytes(Block::Portion::MadeAgain);
    bytes = std::max({bytes, not_kept + block->forward_workspace(target), block->backward_input_workspace(target),
                      gathers + block->backward_weight_workspace(target)});
    if (options_.overlap == Overlap::On) bytes = std::max(bytes, block->backward_workspace(target));
  }
  return bytes;
}

PartCosts Transformer::costs() const {
  PartCosts costs;
  if (embedding_) costs.embedding = embedding_->cost();
  for (const auto& block : blocks_) costs.blocks.push_back(block->cost());
  if (head_) costs.head = head_->cost();
  return costs;
}

// lists: where those go that must be in host memory, when the arena is on a device.
Transformer::Slot Transformer::take_slot(Arena& arena, Arena& lists) const {
  Slot slot;
  slot.plan = make_microbatch_plan(shape_, layers(), arena, options_.device == Device::Cpu ? arena : lists);
  for (const auto& block : blocks_) slot.kept.push_back(block->allocate(arena, Block::Portion::Kept));
  slot.residual.push_back(first() ? arena.take(residual_shape(), shape_.compute) : Tensor());
  for (int i = 0; i < blocks(); ++i) slot.residual.push_back(arena.take(residual_shape(), shape_.compute));
  if (head_) slot.head = head_->allocate(arena);
  slot.area.assign(blocks(), -1);
  return slot;
}

Transformer::Area Transformer::take_area(Arena& arena) const {
  Area area;
  for (const auto& block : blocks_) {
    ArenaScope same_memory(arena);
    const Block::Saved views = block->allocate(arena, Block::Portion::MadeAgain);
    (block->recompute_mode() == Recompute::Full ? area.full : area.selective) = views;
  }
  arena.take({area_bytes() / size_of(DType::U32)}, DType::U32);
  return area;
}

void Transformer::allocate(Context& context, Comm& tp, Comm* cp) {
  TESSERA_CHECK_EQ(tp.size(), shape_.tp, "tensor-parallel ranks");
  TESSERA_CHECK_EQ(tp.rank(), shape_.tp_rank, "tensor-parallel rank");
  TESSERA_CHECK_EQ(cp == nullptr ? 1 : cp->size(), shape_.cp, "context-parallel ranks");
  TESSERA_CHECK_EQ(cp == nullptr ? 0 : cp->rank(), shape_.cp_rank, "context-parallel rank");
  TESSERA_CHECK(context.device() == options_.device, "the stage was made for another device");
  tp_ = &tp;
  tp.expect_device_tensors();
  if (shape_.cp > 1) {
    int64_t most = 0;
    for (const auto& block : blocks_) most = std::max(most, block->most_exchanged());
    cp_ = std::make_unique<ContextGroup>(*cp, most);
  }
  weights_ = Arena("weights", context.device(), weights_bytes());
  for (Parameter* parameter : parameters_) {
    if (options_.weights_elsewhere) break;
    parameter->value = parameter->tied_to != nullptr
                           ? parameter->tied_to->value
                           : weights_.take(parameter->padded_shape(), shape_.compute).rows(0, parameter->rows.size());
    TESSERA_CHECK(parameter->value.data() != nullptr, "the stage with the embedding is allocated first");
  }
  activations_ = Arena("activations", context.device(), activations_bytes());
  lists_ = Arena("lists", Device::Cpu, options_.slots * list_bytes());
  const int64_t slot_words = slot_bytes() / size_of(DType::U32);
  for (int i = 0; i < options_.slots; ++i) {
    Tensor memory;
    {
      ArenaScope same_memory(activations_);
      memory = activations_.take({slot_words}, DType::U32);
    }
    slots_.push_back(take_slot(activations_, lists_));
    slots_.back().memory = memory;
  }
  for (int i = 0; i < options_.areas; ++i) areas_.push_back(take_area(activations_));
  if (head_) loss_ = activations_.take({1}, DType::F64);
  TESSERA_CHECK_EQ(activations_.used(), activations_.capacity(), "the layers' statements of saved bytes");
  gathered_.reserve(Block::kGathers * blocks_.size() + 1);
  for (const auto& block : blocks_) block->prepare(context);
  if (head_) head_->prepare(context);
}

Block::Saved Transformer::saved(const Slot& slot, int block) const {
  const Recompute mode = blocks_[block]->recompute_mode();
  if (mode == Recompute::None) return slot.kept[block];
  TESSERA_CHECK(slot.area[block] >= 0, "RECOMPUTE comes before backward");
  const Area& area = areas_[slot.area[block]];
  return Block::joined(slot.kept[block], mode == Recompute::Full ? area.full : area.selective);
}

void Transformer::forward_blocks(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range) {
  TESSERA_CHECK_EQ(batch.slots(), shape_.slots, "token slots of a microbatch");
  Slot& slot = slots_.at(ref.slot);
  if (range.first == 0) {
    // A step that threw may have left memory taken.
    for (int& area : slot.area) {
      if (area >= 0) areas_[area].taken = false;
      area = -1;
    }
    slot.plan.make(context, batch);
    if (embedding_) embedding_->forward(run(context), batch, slot.residual[0]);
  }
  queue(context, Pass::Forward, ref, range, [&] {
    for (int i = range.first; i < range.last; ++i) {
      ArenaScope scope(context.workspace());
      const Block::Saved saved =
          Block::joined(slot.kept[i], blocks_[i]->allocate(context.workspace(), Block::Portion::MadeAgain));
      blocks_[i]->forward(run(context), slot.plan, before(slot, ref, i), saved, slot.residual[i + 1]);
    }
  });
}

void Transformer::queue(Context& context, Pass pass, const SlotRef& ref, BlockRange range, FunctionRef<void()> work) {
  if (!records()) return work();
  const auto add = [&](const void* pointer) { key_.push_back(reinterpret_cast<uintptr_t>(pointer)); };
  key_.assign({static_cast<uint64_t>(pass), static_cast<uint64_t>(ref.slot), static_cast<uint64_t>(range.first),
               static_cast<uint64_t>(range.last)});
  add(ref.input.data());
  add(context.workspace().take({0}, DType::U32).data());  // where it is free
  const std::vector<int>& areas = slots_.at(ref.slot).area;
  for (int i = range.first; i < range.last; ++i) key_.push_back(static_cast<uint64_t>(areas[i] + 1));
  for (const Parameter* parameter : parameters_) {
    if (parameter->block < range.first || parameter->block >= range.last) continue;
    add(parameter->value.data());
    if (pass != Pass::Forward && pass != Pass::Recompute) add(parameter->gradient.data());
  }
  replay_.run(context, key_, work);
}

void Transformer::head_forward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range,
                               double loss_scale, Head::Mode mode) {
  if (!head_ || range.last < blocks()) return;
  const Slot& slot = slots_.at(ref.slot);
  head_->forward(run(context), batch, slot.residual.back(), *slot.head, loss_scale, mode, loss_);
}

void Transformer::forward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range,
                          double loss_scale) {
  forward_blocks(context, batch, ref, range);
  head_forward(context, batch, ref, range, loss_scale, Head::Mode::Train);
}

void Transformer::evaluate(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range,
                           double loss_scale) {
  forward_blocks(context, batch, ref, range);
  head_forward(context, batch, ref, range, loss_scale, Head::Mode::Evaluate);
}

void Transformer::clear_loss(Context& context) {
  if (head_) zero(context, loss_);
}

Losses Transformer::losses(Context& context) {
  double loss = 0;
  if (head_) copy(context, loss_, Tensor(std::span<double>(&loss, 1), {1}));
  Losses losses;
  losses.add(kHeadLoss, loss);
  return losses;
}

void Transformer::recompute(Context& context, const Batch&, const SlotRef& ref, BlockRange range) {
  Slot& slot = slots_.at(ref.slot);
  for (int i = range.first; i < range.last; ++i) {
    if (blocks_[i]->recompute_mode() == Recompute::None) continue;
    const auto free = std::find_if(areas_.begin(), areas_.end(), [](const Area& area) { return !area.taken; });
    TESSERA_CHECK(free != areas_.end(), "no memory is left for what RECOMPUTE makes");
    free->taken = true;
    slot.area[i] = static_cast<int>(free - areas_.begin());
  }
  queue(context, Pass::Recompute, ref, range, [&] {
    for (int i = range.first; i < range.last; ++i) {
      if (blocks_[i]->recompute_mode() == Recompute::None) continue;
      blocks_[i]->recompute(run(context), slot.plan, before(slot, ref, i), saved(slot, i));
    }
  });
}

void Transformer::backward_input(Context& context, const Batch&, const SlotRef& ref, BlockRange range) {
  Slot& slot = slots_.at(ref.slot);
  queue(context, Pass::BackwardInput, ref, range, [&] {
    if (head_ && range.last == blocks()) head_->backward_input(run(context), slot.residual.back(), *slot.head);
    for (int i = range.last; i-- > range.first;)
      blocks_[i]->backward_input(run(context), slot.plan, before(slot, ref, i), saved(slot, i), slot.residual[i + 1]);
  });
}

void Transformer::free_area(Slot& slot, int block) {
  if (slot.area[block] >= 0) areas_[slot.area[block]].taken = false;
  slot.area[block] = -1;
}

void Transformer::backward_weight(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range) {
  Slot& slot = slots_.at(ref.slot);
  const bool with_embedding = embedding_ && range.first == 0;
  gathered_.clear();
  for (int i = range.last; i-- > range.first;) {
    const auto block_gathers = Block::gathers(saved(slot, i), slot.residual[i + 1]);
    gathered_.insert(gathered_.end(), block_gathers.begin(), block_gathers.end());
  }
  if (with_embedding) gathered_.push_back(slot.residual[0]);
  ArenaScope scope(context.workspace());
  TokenGathers all(context, *tp_, gathered_, options_.overlap);
  queue(context, Pass::BackwardWeight, ref, range, [&] {
    for (int i = range.last; i-- > range.first;)
      blocks_[i]->backward_weight(run(context), saved(slot, i), slot.residual[i + 1], all);
  });
  for (int i = range.last; i-- > range.first;) free_area(slot, i);
  if (!with_embedding) return;
  // all.of() must be asked in the gathers' order, but a recording that is queued again asks nothing. Recordings are only
  // made where the group has one rank, and there nothing has to be gathered.
  const ConstTensor reached = shape_.tp == 1 ? ConstTensor(slot.residual[0]) : all.of(slot.residual[0]);
  embedding_->backward_weight(run(context), batch, reached);
}

void Transformer::backward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange range) {
  if (options_.overlap == Overlap::Off) return Stage::backward(context, batch, ref, range);
  Slot& slot = slots_.at(ref.slot);
  queue(context, Pass::Backward, ref, range, [&] {
    if (head_ && range.last == blocks()) head_->backward_input(run(context), slot.residual.back(), *slot.head);
    for (int i = range.last; i-- > range.first;)
      blocks_[i]->backward(run(context), slot.plan, before(slot, ref, i), saved(slot, i), slot.residual[i + 1]);
  });
  for (int i = range.last; i-- > range.first;) free_area(slot, i);
  if (!embedding_ || range.first > 0) return;
  ArenaScope scope(context.workspace());
  embedding_->backward_weight(run(context), batch, gather_tokens(context, *tp_, slot.residual[0]));
}

void Transformer::slot_restored(Context& context, const Batch& batch, int slot) {
  // The plan's lists came back with the slot's memory, but what points at them and at the batch did not.
  slots_.at(slot).plan.make(context, batch);
}

void Transformer::logits(Context& context, const Batch& batch, int64_t first_row, const Tensor& logits) {
  TESSERA_CHECK(first() && last(), "logits need the whole model");
  forward_blocks(context, batch, {}, {0, blocks()});
  head_->logits(run(context), slots_.front().residual.back(), first_row, logits);
}

}  // namespace tessera
