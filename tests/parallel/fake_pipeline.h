// A source, stages and a reducer that only write down what a pipeline asks of them.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "parallel/pipeline.h"
#include "parallel/schedule/blocks.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"

namespace tessera {

struct Log {
  std::vector<std::string> lines;
  void operator()(const std::string& line) { lines.push_back(line); }
};

// Microbatch m has `slots` tokens, whose targets are counted.
class FakeSource : public Source {
 public:
  FakeSource(Log& log, int microbatches, int64_t targets) : log_(log), batches_(microbatches), targets_(targets) {}
  void load(int64_t first_sample) override { log_("load " + std::to_string(first_sample)); }
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m); }
  int64_t targets() const override { return targets_; }
  int index_of(const Batch& batch) const { return static_cast<int>(&batch - batches_.data()); }

 private:
  Log& log_;
  std::vector<Batch> batches_;
  int64_t targets_;
};

// Forward: output = 10 * input + stage + 1 (the first stage's input is the microbatch), so that microbatch 3 leaves
// stage 1 as 312. Backward: the gradient of the input = the gradient of the output + 1, the last stage's being 1000 *
// output.
class FakeStage : public Stage {
 public:
  FakeStage(Log& log, const FakeSource& source, int index, int stages, int slots, double loss)
      : log_(log),
        source_(source),
        index_(index),
        last_(index == stages - 1),
        loss_(loss),
        arena_("fake", Device::Cpu, 1 << 16) {
    for (int i = 0; i < slots; ++i) output_.push_back(arena_.take({1}, DType::F64));
  }
  int index() const override { return index_; }
  int blocks() const override { return 2; }
  int slots() const override { return static_cast<int>(output_.size()); }
  Tensor boundary() const override { return {nullptr, {1}, DType::F64}; }
  int64_t slot_bytes() const override { return sizeof(double); }
  Tensor output(int slot) override { return output_.at(slot); }
  Tensor slot_memory(int slot) override { return {output_.at(slot).data(), {2}, DType::U32}; }
  void slot_restored(Context&, const Batch& batch, int slot) override { note("restored", batch, slot, {0, 2}); }
  void forward(Context&, const Batch& batch, const SlotRef& ref, BlockRange blocks, double loss_scale) override {
    note("F", batch, ref.slot, blocks);
    if (blocks.last < 2) return;
    run(batch, ref);
    add_loss(loss_scale);
  }
  void recompute(Context&, const Batch& batch, const SlotRef& ref, BlockRange blocks) override {
    note("C", batch, ref.slot, blocks);
  }
  void backward_input(Context&, const Batch& batch, const SlotRef& ref, BlockRange blocks) override {
    note("B", batch, ref.slot, blocks);
    if (blocks.first > 0) return;
    double& gradient = *output_.at(ref.slot).as<double>();
    if (last_) gradient *= 1000;
    gradients.push_back(gradient);
    if (index_ > 0) *ref.input.as<double>() = gradient + 1;
  }
  void backward_weight(Context&, const Batch& batch, const SlotRef& ref, BlockRange blocks) override {
    note("W", batch, ref.slot, blocks);
    // Nothing may have written over the gradient since.
    if (blocks.first == 0) weight_gradients.push_back(*output_.at(ref.slot).as<double>());
  }
  void backward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) override {
    ++in_a_row;
    Stage::backward(context, batch, ref, blocks);
  }
  void evaluate(Context&, const Batch& batch, const SlotRef& ref, BlockRange blocks, double loss_scale) override {
    note("E", batch, ref.slot, blocks);
    if (blocks.last < 2) return;
    run(batch, ref);
    if (last_) gradients.push_back(*output_.at(ref.slot).as<double>());
    add_loss(loss_scale);
  }
  void clear_loss(Context&) override { sum_ = balance_ = 0; }
  Losses losses(Context&) override {
    Losses losses;
    losses.add(kHeadLoss, sum_);
    if (balance != 0) losses.add("balance", balance_);
    return losses;
  }
  std::vector<StateSlice> state() override { return own_state; }
  Parameters& parameters() override { return parameters_; }

  std::vector<double> gradients, weight_gradients;  // of the output, by microbatch
  int in_a_row = 0;                                 // calls of backward
  double balance = 0;                 // what a forward adds to a second loss, on every stage; 0: there is none
  std::vector<StateSlice> own_state;  // what the stage says it must save

 private:
  void add_loss(double scale) {
    balance_ += balance * scale;
    if (last_) sum_ += loss_ * scale;
  }
  void run(const Batch& batch, const SlotRef& ref) {
    const double input = index_ == 0 ? source_.index_of(batch) : *ref.input.as<double>();
    *output_.at(ref.slot).as<double>() = 10 * input + index_ + 1;
  }
  void note(const char* what, const Batch& batch, int slot, BlockRange blocks) {
    std::string line = what + std::to_string(source_.index_of(batch));
    if (index_ > 0) line += "@" + std::to_string(index_);
    if (blocks != BlockRange{0, 2}) line += ":" + std::to_string(blocks.first) + "-" + std::to_string(blocks.last);
    log_(line + " slot " + std::to_string(slot));
  }

  Log& log_;
  const FakeSource& source_;
  int index_;
  bool last_;
  double loss_;  // summed over a microbatch's targets
  double sum_ = 0, balance_ = 0;
  Arena arena_;
  std::vector<Tensor> output_;
  Parameters parameters_;
};

class FakeReducer : public Reducer {
 public:
  FakeReducer(Log& log, double norm) : log_(log), norm_(norm) {}
  void begin_step(Context&) override { log_("begin"); }
  void gather(Context&, int stage, BlockRange blocks, GatherFor purpose) override {
    log_("gather " + range(stage, blocks) + (purpose == GatherFor::Forward ? " for forward" : ""));
  }
  void weights_needed(Context&, int stage, BlockRange blocks) override {
    if (tells_needs) log_("weights " + range(stage, blocks));
  }
  void release(Context&, int stage, BlockRange blocks) override { log_("release " + range(stage, blocks)); }
  void gradients_needed(Context&, int stage, BlockRange blocks) override {
    if (tells_needs) log_("gradients " + range(stage, blocks));
  }
  void reduce(Context&, int stage, BlockRange blocks, ReduceTurn turn) override {
    log_("reduce " + range(stage, blocks) + (turn == ReduceTurn::Last ? "" : " not last"));
  }
  double norm(Context&) override {
    log_("norm");
    return norm_;
  }
  void step(Context&, double learning_rate, int64_t step) override {
    log_("step " + std::to_string(step) + " rate " + std::to_string(learning_rate));
  }
  std::vector<StateSlice> state() override { return {}; }
  std::vector<StateSlice> gradients() override { return {}; }
  void state_loaded(Context&) override {}

  bool tells_needs = false;

 private:
  static std::string range(int stage, BlockRange blocks) {
    return std::to_string(stage) + ":" + std::to_string(blocks.first) + "-" + std::to_string(blocks.last);
  }

  Log& log_;
  double norm_;
};

inline PipelineSchedule alone(int microbatches, const std::string& list) {
  return {.microbatches = microbatches, .rank_of_stage = {0}, .ranks = {parse_schedule(list)}};
}
PipelineSchedule accumulation(int microbatches) { return generate({.ranks = 1, .microbatches = microbatches}); }

}  // namespace tessera
