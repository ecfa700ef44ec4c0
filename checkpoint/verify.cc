#include "checkpoint/verify.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/names.h"
#include "checkpoint/format/shard_index.h"
#include "checkpoint/manifest.pb.h"
#include "checkpoint/scan.h"

namespace tessera {
namespace {

constexpr int64_t kMaxIndexBytes = int64_t{1} << 32;

constexpr int64_t kMarkBytes = 33;

// A line.
std::string manifest_hash(Storage& storage, const std::string& path) {
  return hash128(storage.read_file(join(path, kManifestName), kMaxManifestBytes)).hex() + "\n";
}

struct Block {
  const Box* box;
  int64_t number;  // in the box
  int64_t begin() const { return box->offset + number * kBlockBytes; }
  int64_t size() const { return std::min(kBlockBytes, box->bytes - number * kBlockBytes); }

  std::string str() const {
    const int64_t row_bytes = box->bytes / box->rows.size();
    const int64_t first = number * kBlockBytes;
    const Interval rows{box->rows.begin + first / row_bytes, box->rows.begin + (first + size() - 1) / row_bytes + 1};
    return fmt::format("rows {} of {}", rows.str(), box->tensor);
  }
};

class Verifier {
 public:
  Verifier(Storage& storage, const std::string& path) : storage_(storage) { result_.path = path; }

  Verification run(int part, int parts) {
    Manifest manifest;
    const std::string file = join(result_.path, kManifestName);
    guard([&] {
      if (!storage_.exists(file)) throw CheckpointError(file + " is missing: the checkpoint is not complete");
      const std::string text = storage_.read_file(file, kMaxManifestBytes);
      ++result_.files;
      result_.bytes += static_cast<int64_t>(text.size());
      parse_manifest(text, file, manifest);
    });
    if (!result_.ok()) return result_;
    for (int i = part; i < manifest.shard_size(); i += parts) {
      const auto& shard = manifest.shard(i);
      std::vector<Box> boxes;
      guard([&] { boxes = check_index(shard); });
      guard([&] { check_file(shard.data(), boxes); });
    }
    if (part != 0) return result_;
    if (manifest.has_view()) guard([&] { check_file(manifest.view(), {}); });
    // What is left: whether the boxes make up the tensors of the manifest.
    if (result_.ok()) guard([&] { open_complete(storage_, result_.path); });
    return result_;
  }

 private:
  void guard(const std::function<void()>& check) {
    try {
      check();
    } catch (const Error& error) {
      result_.problems.emplace_back(error.what());
    }
  }

  std::vector<Box> check_index(const Manifest::Shard& shard) {
    const std::string path = join(result_.path, shard.index().name());
    if (!storage_.exists(path)) throw CheckpointError(path + " is missing");
    const std::string bytes = storage_.read_file(path, kMaxIndexBytes);
    ++result_.files;
    result_.bytes += static_cast<int64_t>(bytes.size());
    if (hash128(bytes).hex() != shard.index().xxh3_128()) {
      throw CheckpointError(path + " does not match the manifest's hash");
    }
    return decode_index(bytes, path, shard.data().bytes());
  }

  // One pass over the file, in the blocks of its boxes and the bytes between them.
  void check_file(const Manifest::File& entry, const std::vector<Box>& boxes) {
    const std::string path = join(result_.path, entry.name());
    if (!storage_.exists(path)) throw CheckpointError(path + " is missing");
    const auto file = storage_.open(path);
    file->forget();
    ++result_.files;
    result_.bytes += file->size();
    if (file->size() != entry.bytes()) {
      throw CheckpointError(
          fmt::format("{} has {} bytes, and the manifest says {}", path, file->size(), entry.bytes()));
    }
    std::vector<Block> blocks;
    for (const Box& box : boxes) {
      for (int64_t i = 0; i < block_count(box.bytes); ++i) blocks.push_back({&box, i});
    }
    std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) { return a.begin() < b.begin(); });

    Hasher128 hasher;
    int64_t position = 0;
    const auto next = [&](int64_t bytes) {
      buffer_.resize(kBlockBytes);
      const auto part = std::span(buffer_).first(bytes);
      file->read(position, part);
      hasher.update(part);
      position += bytes;
      return part;
    };
    const auto skip_to = [&](int64_t end) {
      while (position < end) next(std::min(kBlockBytes, end - position));
    };
    const size_t problems_before = result_.problems.size();
    for (const Block& block : blocks) {
      if (block.begin() < position) throw CheckpointError(fmt::format("{}: two boxes lie at {}", path, block.begin()));
      skip_to(block.begin());
      ++result_.blocks;
      if (hash128(next(block.size())) != block.box->blocks[block.number]) {
        result_.problems.push_back(fmt::format("{}: {} bytes at {} do not match their hash: {}", path, block.size(),
                                               block.begin(), block.str()));
      }
    }
    skip_to(file->size());
    if (hasher.digest().hex() != entry.xxh3_128() && result_.problems.size() == problems_before) {
      throw CheckpointError(fmt::format("{} does not match the manifest's hash{}", path,
                                        blocks.empty() ? "" : ", outside the tensors' bytes"));
    }
  }

  Storage& storage_;
  Verification result_;
  std::vector<std::byte> buffer_;
};

}  // namespace

Verification verify(Storage& storage, const std::string& path) { return verify_part(storage, path, 0, 1); }

Verification verify_part(Storage& storage, const std::string& path, int part, int parts) {
  return Verifier(storage, path).run(part, parts);
}

void mark_verified(Storage& storage, const std::string& path) {
  const std::string text = manifest_hash(storage, path);
  const std::string file = join(path, kVerifiedName);
  storage.write_file(file + ".tmp", std::as_bytes(std::span(text)));
  storage.rename(file + ".tmp", file);
  clear_damage(storage, path);
}

bool is_marked_verified(Storage& storage, const std::string& path) {
  const std::string file = join(path, kVerifiedName);
  return storage.exists(file) && storage.exists(join(path, kManifestName)) && storage.file_size(file) == kMarkBytes &&
         storage.read_file(file, kMarkBytes) == manifest_hash(storage, path);
}

void mark_damaged(Storage& storage, const std::string& path, const std::string& problem) {
  const std::string text = manifest_hash(storage, path) + problem;
  const std::string file = join(path, kDamagedName);
  storage.write_file(file + ".tmp", std::as_bytes(std::span(text)));
  storage.rename(file + ".tmp", file);
}

std::string marked_damage(Storage& storage, const std::string& path) {
  constexpr int64_t kMostBytes = 1 << 16;
  const std::string file = join(path, kDamagedName);
  if (!storage.exists(file) || !storage.exists(join(path, kManifestName))) return "";
  const std::string text = storage.read_file(file, kMostBytes), hash = manifest_hash(storage, path);
  return text.starts_with(hash) ? text.substr(hash.size()) : "";
}

void clear_damage(Storage& storage, const std::string& path) {
  const std::string file = join(path, kDamagedName);
  if (storage.exists(file)) storage.remove_tree(file);
}

}  // namespace tessera
