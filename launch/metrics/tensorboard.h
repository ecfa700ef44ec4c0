// TensorBoard event files, written without TensorFlow.
//
// A file is a row of records (TFRecord): u64 length, u32 masked CRC-32C of the length's bytes, the bytes, u32 masked
// CRC-32C of them, all little-endian; masked(crc) = rotate_right(crc, 15) + 0xa282ead8. A record holds an Event
// (tensorflow/core/util/event.proto) in protocol buffer encoding; of it we write
//   double wall_time = 1; int64 step = 2; string file_version = 3 (first record: "brain.Event:2");
//   Summary summary = 5 { repeated Value value = 1 { string tag = 1; float simple_value = 2; } };
//   SessionLog session_log = 7 { SessionStatus status = 1; } with START = 1.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "launch/metrics/step_metrics.h"

namespace tessera {

struct Scalar {
  std::string_view tag;  // "train/loss": TensorBoard groups by what is before the slash
  double value = 0;
};

class TensorboardWriter {
 public:
  // Makes `directory` and in it a new file, named so that it sorts after those of earlier starts of the run. When the
  // run resumes from a step (not negative), the file begins with a session start at the step after it, which tells
  // TensorBoard to forget what an earlier start wrote from there on. Throws IoError.
  TensorboardWriter(const std::string& directory, int64_t resumed_step);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  // Loss, gradient norm, learning rate and speed of a step; the loss of a validation set.
  void write(const StepMetrics& metrics);
  void write(const EvaluationMetrics& metrics);
  // One event with these values, handed to the system at once so that TensorBoard sees it. Throws IoError.
  void write(int64_t step, std::span<const Scalar> scalars);

  const std::string& path() const { return path_; }

 private:
  void write_record();  // event_, framed

  std::string path_;
  int file_ = -1;
  std::string event_;  // kept for their memory
  std::string summary_;
  std::string value_;
  std::string record_;
};

// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78).
uint32_t crc32c(std::string_view bytes);

}  // namespace tessera
