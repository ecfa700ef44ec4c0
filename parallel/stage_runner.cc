#include "parallel/stage_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "tensor/context/copy.h"

namespace tessera {
namespace {

// Messages between two stages keep their order; forward and backward ones are told apart by their tags.
int forward_tag(int receiving_stage) { return 2 * receiving_stage; }
int backward_tag(int receiving_stage) { return 2 * receiving_stage + 1; }

}  // namespace

StageRunner::StageRunner(Stage& stage, const Wiring& wiring)
    : stage_(stage), wiring_(wiring), inputs_(wiring.inputs), slots_(stage.slots()), offloaded_(wiring.offloaded) {
  for (int slot = 0; slot < stage.slots(); ++slot) slots_[slot].tensor = stage.output(slot);
  if (wiring.before != nullptr) wiring.before->read_here_ = true;
}

int64_t StageRunner::message_bytes(const Stage& stage, const Wiring& wiring) {
  const Tensor boundary = stage.boundary();
  return wiring.inputs * Arena::bytes(boundary.shape(), boundary.dtype());
}

int64_t StageRunner::offload_bytes(const Stage& stage, const Wiring& wiring) {
  return wiring.offloaded * Arena::bytes({stage.slot_bytes() / size_of(DType::U32)}, DType::U32);
}

void StageRunner::take_buffers(Arena& messages, Arena& offloaded) {
  const Tensor boundary = stage_.boundary(), slot = stage_.slot_memory(0);
  for (Buffer& buffer : inputs_) buffer.tensor = messages.take(boundary.shape(), boundary.dtype());
  for (Buffer& buffer : offloaded_) buffer.tensor = offloaded.take(slot.shape(), slot.dtype());
}

BlockRange StageRunner::resolved(BlockRange blocks) const {
  TESSERA_CHECK(blocks.first < stage_.blocks(), fmt::format("stage {} has no block {}", stage_.index(), blocks.first));
  return {blocks.first, std::min(blocks.last, stage_.blocks())};
}

void StageRunner::reset() {
  for (auto* buffers : {&inputs_, &slots_, &offloaded_}) {
    for (Buffer& buffer : *buffers) release(buffer);
  }
}

StageRunner::Buffer* StageRunner::find(std::vector<Buffer>& buffers, int microbatch) {
  const auto found = std::find_if(buffers.begin(), buffers.end(),
                                  [&](const Buffer& buffer) { return buffer.microbatch == microbatch; });
  return found == buffers.end() ? nullptr : &*found;
}

StageRunner::Buffer& StageRunner::input_of(int microbatch) {
  Buffer* buffer = find(inputs_, microbatch);
  TESSERA_CHECK(buffer != nullptr, fmt::format("stage {} has no input of microbatch {}", stage_.index(), microbatch));
  return *buffer;
}

StageRunner::Buffer& StageRunner::slot_of(int microbatch) {
  Buffer* buffer = find(slots_, microbatch);
  TESSERA_CHECK(buffer != nullptr, fmt::format("stage {} has no slot of microbatch {}", stage_.index(), microbatch));
  return *buffer;
}

// The one that has been free for longest: a peer takes messages up in the order sent, so its send ends first.
StageRunner::Buffer& StageRunner::take(std::vector<Buffer>& buffers, int microbatch, const char* what) {
  Buffer* best = nullptr;
  for (Buffer& buffer : buffers) {
    if (buffer.microbatch < 0 && (best == nullptr || buffer.released < best->released)) best = &buffer;
  }
  // The schedule was verified.
  TESSERA_CHECK(best != nullptr,
                fmt::format("stage {} has no free {} for microbatch {}", stage_.index(), what, microbatch));
  wait(best->sent, waited_.sends);
  best->microbatch = microbatch;
  return *best;
}

void StageRunner::release(Buffer& buffer) {
  buffer.microbatch = -1;
  buffer.released = ++releases_;
}

void StageRunner::wait(Request& request, double& seconds) {
  if (!request.pending()) return;
  const auto start = std::chrono::steady_clock::now();
  request.wait();
  seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void StageRunner::await_input(int microbatch) {
  if (wiring_.from >= 0) wait(input_of(microbatch).received, waited_.receives);
}

SlotRef StageRunner::ref_of(int microbatch) {
  SlotRef ref{.slot = static_cast<int>(&slot_of(microbatch) - slots_.data()), .input = {}};
  if (wiring_.before != nullptr) {
    ref.input = wiring_.before->slot_of(microbatch).tensor;
  } else if (Buffer* input = find(inputs_, microbatch)) {
    ref.input = input->tensor;
  }
  return ref;
}

void StageRunner::receive_forward(int microbatch) {
  Buffer& input = take(inputs_, microbatch, "input buffer");
  input.received = wiring_.pipeline->receive(input.tensor, wiring_.from, forward_tag(stage_.index()));
}

void StageRunner::forward(Context& context, const Batch& batch, int microbatch, BlockRange blocks, double loss_scale) {
  if (blocks.first == 0) {
    take(slots_, microbatch, "slot");
    await_input(microbatch);
  }
  stage_.forward(context, batch, ref_of(microbatch), resolved(blocks), loss_scale);
}

void StageRunner::send_forward(int microbatch) {
  Buffer& slot = slot_of(microbatch);
  slot.sent = wiring_.pipeline->send(slot.tensor, wiring_.to, forward_tag(stage_.index() + 1));
}

void StageRunner::receive_backward(int microbatch) {
  Buffer& slot = slot_of(microbatch);
  wait(slot.sent, waited_.sends);  // the gradient overwrites what was sent
  slot.received = wiring_.pipeline->receive(slot.tensor, wiring_.to, backward_tag(stage_.index()));
}

void StageRunner::recompute(Context& context, const Batch& batch, int microbatch, BlockRange blocks) {
  stage_.recompute(context, batch, ref_of(microbatch), resolved(blocks));
}

void StageRunner::backward_input(Context& context, const Batch& batch, int microbatch, BlockRange blocks) {
  wait(slot_of(microbatch).received, waited_.receives);
  stage_.backward_input(context, batch, ref_of(microbatch), resolved(blocks));
}

void StageRunner::send_backward(int microbatch) {
  Buffer& input = input_of(microbatch);
  input.sent = wiring_.pipeline->send(input.tensor, wiring_.from, backward_tag(stage_.index() - 1));
  release(input);  // to be taken again when the send is over
}

void StageRunner::backward_weight(Context& context, const Batch& batch, int microbatch, BlockRange blocks) {
  stage_.backward_weight(context, batch, ref_of(microbatch), resolved(blocks));
  if (blocks.first == 0) release(slot_of(microbatch));
}

void StageRunner::backward(Context& context, const Batch& batch, int microbatch, BlockRange blocks) {
  wait(slot_of(microbatch).received, waited_.receives);
  stage_.backward(context, batch, ref_of(microbatch), resolved(blocks));
  if (blocks.first == 0) release(slot_of(microbatch));
}

void StageRunner::offload(Context& context, int microbatch) {
  Buffer& slot = slot_of(microbatch);
  wait(slot.sent, waited_.sends);
  Buffer& host = take(offloaded_, microbatch, "host buffer");
  const Tensor memory = stage_.slot_memory(static_cast<int>(&slot - slots_.data()));
  copy(context, memory, host.tensor);
  release(slot);
}

void StageRunner::fetch(Context& context, const Batch& batch, int microbatch) {
  Buffer* host = find(offloaded_, microbatch);
  TESSERA_CHECK(host != nullptr,
                fmt::format("microbatch {} of stage {} was not offloaded", microbatch, stage_.index()));
  const int slot = static_cast<int>(&take(slots_, microbatch, "slot") - slots_.data());
  const Tensor memory = stage_.slot_memory(slot);
  copy(context, host->tensor, memory);
  stage_.slot_restored(context, batch, slot);
  release(*host);
}

void StageRunner::evaluate(Context& context, const Batch& batch, int microbatch, BlockRange range, double loss_scale) {
  const BlockRange blocks = resolved(range);
  if (blocks.first == 0) {
    take(slots_, microbatch, "slot");
    await_input(microbatch);
  }
  stage_.evaluate(context, batch, ref_of(microbatch), blocks, loss_scale);
  if (blocks.last < stage_.blocks()) return;
  if (wiring_.from >= 0) release(input_of(microbatch));
  if (wiring_.before != nullptr) wiring_.before->release(wiring_.before->slot_of(microbatch));
  if (wiring_.to < 0 && !read_here_) release(slot_of(microbatch));
}

void StageRunner::hand_on(int microbatch) {
  send_forward(microbatch);
  release(slot_of(microbatch));  // take() waits for the send
}

void StageRunner::drain() {
  for (auto* buffers : {&inputs_, &slots_}) {
    for (Buffer& buffer : *buffers) wait(buffer.sent, waited_.sends);
  }
}

StageRunner::Waited StageRunner::take_waited() { return std::exchange(waited_, {}); }

}  // namespace tessera
