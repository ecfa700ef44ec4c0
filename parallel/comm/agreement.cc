#include "parallel/comm/agreement.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace tessera {
namespace {

// Text travels as a count of bytes and then whole words.
std::vector<uint32_t> words_for(uint64_t bytes) { return std::vector<uint32_t>((bytes + 3) / 4); }

Tensor view(std::vector<uint32_t>& words) {
  return Tensor(std::span<uint32_t>(words), Shape{static_cast<int64_t>(words.size())});
}

std::vector<uint32_t> encode_size(uint64_t bytes) {
  return {static_cast<uint32_t>(bytes), static_cast<uint32_t>(bytes >> 32)};
}
uint64_t decode_size(const std::vector<uint32_t>& size) { return uint64_t{size[1]} << 32 | size[0]; }

std::string text_of(const std::vector<uint32_t>& words, uint64_t bytes) {
  std::string text(bytes, '\0');
  if (bytes > 0) std::memcpy(text.data(), words.data(), bytes);
  return text;
}

}  // namespace

std::string broadcast_text(Comm& world, const std::string& text, int root) {
  std::vector<uint32_t> size = encode_size(text.size());
  world.broadcast(view(size), root);
  const uint64_t bytes = decode_size(size);
  std::vector<uint32_t> words = words_for(bytes);
  if (world.rank() == root && bytes > 0) std::memcpy(words.data(), text.data(), bytes);
  world.broadcast(view(words), root);
  return text_of(words, bytes);
}

std::vector<std::string> all_texts(Comm& world, const std::string& text) {
  const auto ranks = static_cast<size_t>(world.size());
  std::vector<uint32_t> own_size = encode_size(text.size()), sizes(2 * ranks);
  world.all_gather(view(own_size), view(sizes));
  std::vector<uint64_t> bytes;
  for (size_t rank = 0; rank < ranks; ++rank) bytes.push_back(uint64_t{sizes[2 * rank + 1]} << 32 | sizes[2 * rank]);
  const uint64_t longest = *std::max_element(bytes.begin(), bytes.end());
  std::vector<uint32_t> own = words_for(longest), all(own.size() * ranks);
  if (!text.empty()) std::memcpy(own.data(), text.data(), text.size());
  world.all_gather(view(own), view(all));
  std::vector<std::string> texts;
  for (size_t rank = 0; rank < ranks; ++rank) {
    texts.emplace_back(reinterpret_cast<const char*>(all.data() + rank * own.size()), bytes[rank]);
  }
  return texts;
}

void send_text(Comm& world, const std::string& text, int to) {
  std::vector<uint32_t> size = encode_size(text.size());
  std::vector<uint32_t> words = words_for(text.size());
  if (!text.empty()) std::memcpy(words.data(), text.data(), text.size());
  world.send(view(size), to).wait();
  world.send(view(words), to).wait();
}

std::string receive_text(Comm& world, int from) {
  std::vector<uint32_t> size(2);
  world.receive(view(size), from).wait();
  const uint64_t bytes = decode_size(size);
  std::vector<uint32_t> words = words_for(bytes);
  world.receive(view(words), from).wait();
  return text_of(words, bytes);
}

std::optional<RankFailure> try_together(Comm& world, FunctionRef<void()> work) {
  std::optional<RankFailure> own;
  try {
    work();
  } catch (const Error& error) {
    own = RankFailure{error.code(), error.what()};
  } catch (const std::exception& error) {
    own = RankFailure{ExitCode::Internal, error.what()};
  }
  // The lowest rank that failed has the largest number here; zero: none did.
  const double worst = world.max(own ? static_cast<double>(world.size() - world.rank()) : 0.0);
  if (worst == 0) return std::nullopt;
  const int speaker = world.size() - static_cast<int>(worst);
  RankFailure failure;
  failure.code = static_cast<ExitCode>(
      std::stoi(broadcast_text(world, own ? std::to_string(static_cast<int>(own->code)) : std::string(), speaker)));
  failure.message = broadcast_text(world, own ? own->message : std::string(), speaker);
  if (world.size() > 1) failure.message = "rank " + std::to_string(speaker) + ": " + failure.message;
  return failure;
}

void throw_failure(const RankFailure& failure) {
  // Every rank throws it and rank 0 reports it, which puts its own number in front.
  const std::string_view own = "rank 0: ";
  const std::string message = failure.message.substr(failure.message.starts_with(own) ? own.size() : 0);
  switch (failure.code) {
    case ExitCode::Usage:
      throw UsageError(message);
    case ExitCode::Data:
      throw DataError(message);
    case ExitCode::NoCheckpoint:
      throw CheckpointError(message);
    case ExitCode::Numerical:
      throw NumericalError(message);
    case ExitCode::Io:
      throw IoError(message);
    case ExitCode::Internal:
      throw InternalError(message);
    default:
      throw Error(failure.code, message);
  }
}

void together(Comm& world, FunctionRef<void()> work) {
  if (const auto failure = try_together(world, work)) throw_failure(*failure);
}

}  // namespace tessera
