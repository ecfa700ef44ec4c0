#include "launch/metrics/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little, "event files are written in the machine's byte order");

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

template <class T>
void put_raw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

// Protocol buffer fields: a key (field number and wire type), then the value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_key(std::string& out, uint64_t field, WireType type) { put_varint(out, field << 3 | type); }
void put_integer(std::string& out, uint64_t field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}
void put_bytes(std::string& out, uint64_t field, std::string_view value) {
  put_key(out, field, kBytes);
  put_varint(out, value.size());
  out.append(value);
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void begin_event(std::string& event, int64_t step) {
  event.clear();
  put_key(event, 1, kFixed64);
  put_raw(event, wall_time());
  put_integer(event, 2, step);
}

// Readers take the files of a directory in the order of their names, which begin with the seconds: one second later
// than the last file's name when this start follows within the same second.
std::string new_path(const std::string& directory) {
  constexpr std::string_view kPrefix = "events.out.tfevents.";
  auto seconds = static_cast<int64_t>(wall_time());
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    seconds = std::max<int64_t>(seconds, std::strtoll(name.c_str() + kPrefix.size(), nullptr, 10) + 1);
  }
  return fmt::format("{}/{}{:010}.{}.{}", directory, kPrefix, seconds, host_name(), ::getpid());
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

TensorboardWriter::TensorboardWriter(const std::string& directory, int64_t resumed_step) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw IoError(fmt::format("cannot make directory {}: {}", directory, error.message()));
  path_ = new_path(directory);
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file_ < 0) throw IoError(fmt::format("cannot make {}: {}", path_, std::strerror(errno)));
  begin_event(event_, 0);
  put_bytes(event_, 3, "brain.Event:2");
  write_record();
  if (resumed_step >= 0) {
    begin_event(event_, resumed_step + 1);
    std::string session;
    put_integer(session, 1, 1);
    put_bytes(event_, 7, session);
    write_record();
  }
}

TensorboardWriter::~TensorboardWriter() {
  if (file_ >= 0) ::close(file_);
}

void TensorboardWriter::write(const StepMetrics& metrics) {
  const Scalar scalars[] = {{"train/loss", metrics.loss},
                            {"train/grad_norm", metrics.grad_norm},
                            {"train/learning_rate", metrics.learning_rate},
                            {"speed/step_seconds", metrics.step_seconds},
                            {"speed/tokens_per_second", metrics.tokens_per_second},
                            {"speed/mfu", metrics.mfu}};
  write(metrics.step, scalars);
}

void TensorboardWriter::write(const EvaluationMetrics& metrics) {
  const std::string tag = "validation/" + metrics.dataset;
  const Scalar scalar{tag, metrics.validation_loss};
  write(metrics.step, {&scalar, 1});
}

void TensorboardWriter::write(int64_t step, std::span<const Scalar> scalars) {
  summary_.clear();
  for (const Scalar& scalar : scalars) {
    value_.clear();
    put_bytes(value_, 1, scalar.tag);
    put_key(value_, 2, kFixed32);
    put_raw(value_, static_cast<float>(scalar.value));
    put_bytes(summary_, 1, value_);
  }
  begin_event(event_, step);
  put_bytes(event_, 5, summary_);
  write_record();
}

void TensorboardWriter::write_record() {
  record_.clear();
  put_raw(record_, static_cast<uint64_t>(event_.size()));
  put_raw(record_, masked_crc(record_));
  record_.append(event_);
  put_raw(record_, masked_crc(event_));
  std::string_view rest = record_;
  while (!rest.empty()) {
    const ssize_t written = ::write(file_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw IoError(fmt::format("cannot write {}: {}", path_, std::strerror(errno)));
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace tessera
