#include "checkpoint/reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/names.h"
#include "checkpoint/manifest.pb.h"

namespace tessera {
namespace {

constexpr size_t kMaxOpenFiles = 64;
constexpr int64_t kMaxIndexBytes = int64_t{1} << 32;

CheckpointInfo make_info(const std::string& path, const Manifest& manifest) {
  CheckpointInfo info;
  info.path = path;
  info.step = manifest.step();
  info.samples = manifest.samples();
  info.tokens = manifest.tokens();
  info.layout = manifest.layout();
  info.config = config_text(manifest);
  for (const auto& version : manifest.version()) info.versions[version.name()] = version.value();
  for (const auto& cursor : manifest.cursor()) info.cursors.numbers[cursor.name()] = cursor.value();
  for (const auto& cursor : manifest.text_cursor()) info.cursors.texts[cursor.name()] = cursor.value();
  return info;
}

void check_size(Storage& storage, const std::string& directory, const Manifest::File& file) {
  const std::string path = join(directory, file.name());
  if (!storage.exists(path)) throw CheckpointError(fmt::format("{} is missing", path));
  if (const int64_t bytes = storage.file_size(path); bytes != file.bytes()) {
    throw CheckpointError(fmt::format("{} has {} bytes, and the manifest says {}", path, bytes, file.bytes()));
  }
}

}  // namespace

CheckpointReader::CheckpointReader(Storage& storage, const std::string& path)
    : storage_(storage), manifest_(std::make_unique<Manifest>()) {
  const std::string file = join(path, kManifestName);
  if (!storage.exists(file)) throw CheckpointError(fmt::format("{} is missing: the checkpoint is not complete", file));
  parse_manifest(storage.read_file(file, kMaxManifestBytes), file, *manifest_);
  info_ = make_info(path, *manifest_);
  for (int i = 0; i < manifest_->tensor_size(); ++i) {
    tensors_.push_back({manifest_->tensor(i).name(), tensor_shape(*manifest_, i), tensor_dtype(*manifest_, i), {}});
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  read_indexes();
}

CheckpointReader::~CheckpointReader() = default;

void CheckpointReader::read_indexes() {
  for (int shard = 0; shard < manifest_->shard_size(); ++shard) {
    const Manifest::Shard& entry = manifest_->shard(shard);
    const std::string path = join(info_.path, entry.index().name());
    check_size(storage_, info_.path, entry.index());
    const std::string bytes = storage_.read_file(path, kMaxIndexBytes);
    if (hash128(bytes).hex() != entry.index().xxh3_128()) {
      throw CheckpointError(fmt::format("{} does not match the manifest's hash", path));
    }
    for (Box& box : decode_index(bytes, path, entry.data().bytes())) {
      auto* tensor = const_cast<StoredTensor*>(find(box.tensor));
      if (tensor == nullptr)
        throw CheckpointError(fmt::format("{}: the manifest knows no tensor {}", path, box.tensor));
      const int64_t rows = tensor->shape[0];
      if (box.dtype != tensor->dtype || box.rows.end > rows || box.bytes != box.rows.size() * tensor->row_bytes()) {
        throw CheckpointError(fmt::format("{}: rows {} of {} are {} bytes of {}, and the manifest says {} {}", path,
                                          box.rows.str(), box.tensor, box.bytes, name(box.dtype), tensor->shape.str(),
                                          name(tensor->dtype)));
      }
      tensor->parts.push_back({shard, std::move(box)});
    }
  }
  for (StoredTensor& tensor : tensors_) {
    std::sort(tensor.parts.begin(), tensor.parts.end(),
              [](const auto& a, const auto& b) { return a.box.rows.begin < b.box.rows.begin; });
    std::vector<Interval> rows;
    for (const auto& part : tensor.parts) rows.push_back(part.box.rows);
    if (const auto problem = gap_or_overlap({0, tensor.shape[0]}, rows)) {
      throw CheckpointError(fmt::format("{}: tensor {}: {}", info_.path, tensor.name, *problem));
    }
  }
}

const StoredTensor* CheckpointReader::find(const std::string& name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const StoredTensor& tensor, const std::string& key) { return tensor.name < key; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

void CheckpointReader::check_sizes() {
  for (const auto& shard : manifest_->shard()) {
    check_size(storage_, info_.path, shard.data());
    check_size(storage_, info_.path, shard.index());
  }
}

FileReader& CheckpointReader::shard_file(int shard) {
  auto it = files_.find(shard);
  if (it != files_.end()) return *it->second;
  if (files_.size() >= kMaxOpenFiles) files_.clear();  // reads go file by file; opening again is cheap
  auto file = storage_.open(join(info_.path, manifest_->shard(shard).data().name()));
  return *files_.emplace(shard, std::move(file)).first->second;
}

void CheckpointReader::read(const StoredTensor& tensor, int64_t first_byte, std::span<std::byte> out) {
  const Interval wanted{first_byte, first_byte + static_cast<int64_t>(out.size())};
  TESSERA_CHECK(wanted.begin >= 0 && wanted.end <= tensor.bytes(), tensor.name + " has such bytes");
  if (out.empty()) return;
  const int64_t row_bytes = tensor.row_bytes();
  const auto after = std::upper_bound(tensor.parts.begin(), tensor.parts.end(), first_byte / row_bytes,
                                      [](int64_t row, const auto& part) { return row < part.box.rows.end; });
  for (auto part = after; part != tensor.parts.end(); ++part) {
    const int64_t part_begin = part->box.rows.begin * row_bytes;
    const Interval here = intersect(wanted, {part_begin, part_begin + part->box.bytes});
    if (here.empty()) break;
    read_part(tensor, *part, here.begin - part_begin, out.subspan(here.begin - wanted.begin, here.size()));
  }
}

// `first` counts from the box's first byte.
void CheckpointReader::read_part(const StoredTensor& tensor, const StoredTensor::Part& part, int64_t first,
                                 std::span<std::byte> out) {
  while (!out.empty()) {
    const int64_t block = first / kBlockBytes;
    const int64_t block_begin = block * kBlockBytes;
    const int64_t block_size = std::min(kBlockBytes, part.box.bytes - block_begin);
    const int64_t inside = first - block_begin;
    const size_t count = std::min<size_t>(out.size(), block_size - inside);
    if (static_cast<int64_t>(count) == block_size) {
      read_block(tensor, part, block, out.first(count));
    } else {
      if (staged_box_ != &part.box || staged_block_ != block) {
        staged_box_ = nullptr;
        staging_.resize(kBlockBytes);
        read_block(tensor, part, block, std::span(staging_).first(block_size));
        staged_box_ = &part.box;
        staged_block_ = block;
      }
      std::memcpy(out.data(), staging_.data() + inside, count);
    }
    first += count;
    out = out.subspan(count);
  }
}

void CheckpointReader::read_block(const StoredTensor& tensor, const StoredTensor::Part& part, int64_t block,
                                  std::span<std::byte> out) {
  shard_file(part.shard).read(part.box.offset + block * kBlockBytes, out);
  if (hash128(out) == part.box.blocks[block]) return;
  const int64_t first_row = part.box.rows.begin + block * kBlockBytes / tensor.row_bytes();
  const int64_t last_byte = block * kBlockBytes + static_cast<int64_t>(out.size()) - 1;
  const int64_t last_row = part.box.rows.begin + last_byte / tensor.row_bytes();
  throw CheckpointError(fmt::format("{}: {} bytes at {} do not match their hash: rows {} of {}",
                                    join(info_.path, manifest_->shard(part.shard).data().name()), out.size(),
                                    part.box.offset + block * kBlockBytes, Interval{first_row, last_row + 1}.str(),
                                    tensor.name));
}

}  // namespace tessera
