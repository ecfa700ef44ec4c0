#include "launch/run/recording.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

double number(const nlohmann::json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<double>() : std::nan("");
}

}  // namespace

Recording::Recording(std::string directory, const TrainingRecord& facts, FlopsOf flops, const std::string& metrics_path,
                     int64_t resumed_step)
    : directory_(std::move(directory)), record_(std::make_unique<TrainingRecord>(facts)), flops_(std::move(flops)) {
  record_->mutable_curve()->set_stride(1);
  record_->set_step(0);
  record_->set_seconds(0);
  // A step takes no memory of its own.
  record_->mutable_curve()->mutable_step()->Reserve(kMostPoints + 2);
  record_->mutable_curve()->mutable_loss()->Reserve(kMostPoints + 2);
  record_->mutable_curve()->mutable_learning_rate()->Reserve(kMostPoints + 2);
  noise_.reserve(static_cast<size_t>(facts.planned_steps()) + 1);
  std::ifstream file(metrics_path);
  for (std::string text; resumed_step > 0 && std::getline(file, text);) {
    const auto line = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("step") || line["step"].get<int64_t>() > resumed_step) continue;
    if (line.contains("validation_loss")) {
      observe({.step = line["step"].get<int64_t>(),
               .validation_loss = number(line, "validation_loss"),
               .dataset = line.value("dataset", "")});
      continue;
    }
    StepMetrics metrics;
    metrics.step = line["step"].get<int64_t>();
    metrics.tokens = line.value("tokens", int64_t{0});
    metrics.loss = number(line, "loss");
    metrics.learning_rate = number(line, "learning_rate");
    metrics.step_seconds = number(line, "step_seconds");
    metrics.attention_pairs = line.value("attention_pairs", int64_t{-1});
    metrics.slots = line.value("slots", int64_t{0});
    metrics.gradient_square = number(line, "gradient_square");
    metrics.gradient_noise = number(line, "gradient_noise");
    observe(metrics);
  }
  record_->set_step(resumed_step);
}

Recording::~Recording() = default;

void Recording::observe(const StepMetrics& metrics) {
  record_->set_step(metrics.step);
  record_->set_tokens(metrics.tokens);
  record_->set_seconds(record_->seconds() + metrics.step_seconds);
  record_->set_last_learning_rate(metrics.learning_rate);
  if (metrics.attention_pairs >= 0) {
    ++seen_;
    pairs_ += static_cast<double>(metrics.attention_pairs);
    // Lines that do not say are of runs whose steps were all alike.
    slots_ += static_cast<double>(metrics.slots > 0 ? metrics.slots : record_->batch_tokens());
  }
  if (std::isfinite(metrics.gradient_square) && std::isfinite(metrics.gradient_noise))
    noise_.push_back({metrics.step, metrics.gradient_square, metrics.gradient_noise});
  auto& curve = *record_->mutable_curve();
  if (metrics.step != 1 && metrics.step % curve.stride() != 0) return;
  curve.add_step(metrics.step);
  curve.add_loss(metrics.loss);
  curve.add_learning_rate(metrics.learning_rate);
  if (curve.step_size() > kMostPoints) thin();
}

void Recording::thin() {
  auto& curve = *record_->mutable_curve();
  curve.set_stride(2 * curve.stride());
  int kept = 0;
  for (int i = 0; i < curve.step_size(); ++i) {
    if (curve.step(i) != 1 && curve.step(i) % curve.stride() != 0) continue;
    curve.set_step(kept, curve.step(i));
    curve.set_loss(kept, curve.loss(i));
    curve.set_learning_rate(kept, curve.learning_rate(i));
    ++kept;
  }
  curve.mutable_step()->Truncate(kept);
  curve.mutable_loss()->Truncate(kept);
  curve.mutable_learning_rate()->Truncate(kept);
}

void Recording::observe(const EvaluationMetrics& metrics) {
  auto& validation = *record_->add_validation_loss();
  validation.set_step(metrics.step);
  validation.set_dataset(metrics.dataset);
  validation.set_loss(metrics.validation_loss);
}

void Recording::write(int64_t samples, double unique_share, bool finished, const std::string& reason) {
  TrainingRecord& record = *record_;
  record.set_status(!reason.empty() ? TrainingRecord::DIVERGED
                    : finished      ? TrainingRecord::FINISHED
                                    : TrainingRecord::UNFINISHED);
  if (!reason.empty()) record.set_reason(reason);
  record.set_samples(samples);
  record.set_unique_tokens(std::llround(unique_share * static_cast<double>(record.tokens())));
  record.clear_flops();
  if (seen_ == record.step()) {
    const StepFlops flops = flops_(slots_, pairs_);
    record.mutable_flops()->set_matrices(flops.matrices);
    record.mutable_flops()->set_attention(flops.attention);
    record.mutable_flops()->set_head(flops.head);
  }
  record.clear_gradient_noise();
  Noise sum{0, 0, 0};
  for (const Noise& measured : noise_) {
    if (2 * measured.step <= record.step()) continue;
    ++sum.step;
    sum.square += measured.square;
    sum.noise += measured.noise;
  }
  if (sum.step > 0) {
    auto& noise = *record.mutable_gradient_noise();
    const auto count = static_cast<double>(sum.step);
    noise.set_measurements(sum.step);
    noise.set_square(sum.square / count);
    noise.set_noise(sum.noise / count);
    if (sum.square > 0 && sum.noise > 0) noise.set_scale_tokens(sum.noise / sum.square);
  }
  write_record(directory_, record);
}

}  // namespace tessera
