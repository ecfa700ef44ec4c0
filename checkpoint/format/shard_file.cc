#include "checkpoint/format/shard_file.h"

#include <algorithm>
#include <array>

#include "checkpoint/format/hdf5_image.h"
#include "checkpoint/format/names.h"

namespace tessera {
namespace {

// A small vector of numbers beside a dataset, for people.
void write_attribute(hid_t dataset, const char* name, std::span<const int64_t> values) {
  const auto space = hdf5_space(Shape{static_cast<int64_t>(values.size())});
  const Hdf5Handle attribute(H5Acreate2(dataset, name, H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                             std::string("make the attribute ") + name);
  hdf5_check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, values.data()), std::string("write the attribute ") + name);
}

// Makes the piece's dataset; returns the box, with no hashes yet.
Box place(Hdf5Image& image, const Piece& piece, const Hdf5Handle& properties) {
  const std::string name = dataset_name(piece.name, piece.rows);
  image.create_groups(name);
  const auto type = hdf5_type(piece.data.dtype());
  const auto space = hdf5_space(piece.data.shape());
  const Hdf5Handle dataset(
      H5Dcreate2(image.file(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose, "make the dataset " + name);
  write_attribute(dataset.get(), "global_shape", piece.global_shape.dims());
  write_attribute(dataset.get(), "first_row", std::array{piece.rows.begin});

  Box box{piece.name, piece.rows, piece.data.dtype(), 0, piece.data.bytes(), {}};
  if (box.bytes > 0) {
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset == HADDR_UNDEF) throw IoError("HDF5: no place in the file for " + name);
    TESSERA_CHECK_EQ(offset % Hdf5Image::kAlignment, haddr_t{0}, "datasets are aligned");
    box.offset = static_cast<int64_t>(offset);
  }
  return box;
}

// A file from its first byte to its last, and the hash of all of it.
class HashedFile {
 public:
  HashedFile(Storage& storage, const std::string& directory, const std::string& name, int64_t bytes)
      : name_(name), writer_(storage.create(join(directory, name), bytes)) {}

  void append(std::span<const std::byte> bytes) {
    hasher_.update(bytes);
    writer_->append(bytes);
    size_ += static_cast<int64_t>(bytes.size());
  }
  int64_t size() const { return size_; }
  WrittenFile finish() {
    writer_->finish();
    return {name_, size_, hasher_.digest()};
  }

 private:
  std::string name_;
  std::unique_ptr<FileWriter> writer_;
  Hasher128 hasher_;
  int64_t size_ = 0;
};

// Appends the layout's own bytes up to `end`.
void append_structures(const ShardLayout& layout, int64_t end, HashedFile& file) {
  std::array<std::byte, 65536> buffer;
  while (file.size() < end) {
    const auto part = std::span(buffer).first(std::min<size_t>(buffer.size(), end - file.size()));
    layout.read_structures(file.size(), part);
    file.append(part);
  }
}

}  // namespace

std::vector<Piece> pieces_to_write(const State& state, const std::vector<std::vector<Interval>>& shares) {
  TESSERA_CHECK_EQ(state.slices.size(), shares.size(), "each slice has its share");
  std::vector<Piece> pieces;
  for (size_t i = 0; i < shares.size(); ++i) {
    const StateSlice& slice = state.slices[i];
    TESSERA_CHECK(slice.global_shape.rank() >= 1, slice.name + " has rows");
    if (slice.rows.empty()) continue;
    TESSERA_CHECK(slice.rows.begin >= 0 && slice.rows.end <= slice.global_shape[0], slice.name + slice.rows.str());
    TESSERA_CHECK_EQ(slice.data.shape(), slice.global_shape.with_rows(slice.rows.size()), slice.name);
    for (const Interval& rows : shares[i]) {
      pieces.push_back({slice.name, slice.global_shape, rows,
                        slice.data.rows(rows.begin - slice.rows.begin, rows.end - slice.rows.begin)});
    }
  }
  return pieces;
}

ShardLayout::ShardLayout(const std::vector<Piece>& pieces) : image_(std::make_unique<Hdf5Image>()) {
  {
    const auto properties = hdf5_dataset_properties();
    for (const Piece& piece : pieces) boxes_.push_back(place(*image_, piece, properties));
  }
  image_->close();
  std::vector<size_t> by_offset(boxes_.size());
  for (size_t i = 0; i < by_offset.size(); ++i) by_offset[i] = i;
  std::sort(by_offset.begin(), by_offset.end(),
            [&](size_t a, size_t b) { return boxes_[a].offset < boxes_[b].offset; });
  for (const size_t i : by_offset) {
    const int64_t bytes = boxes_[i].bytes;
    for (int64_t at = 0; at < bytes; at += kBlockBytes) blocks_.push_back({i, at, std::min(kBlockBytes, bytes - at)});
    piece_bytes_ += bytes;
  }
}

ShardLayout::~ShardLayout() = default;
ShardLayout::ShardLayout(ShardLayout&&) noexcept = default;
ShardLayout& ShardLayout::operator=(ShardLayout&&) noexcept = default;

int64_t ShardLayout::bytes() const { return image_->size(); }
void ShardLayout::read_structures(int64_t offset, std::span<std::byte> out) const { image_->read(offset, out); }

std::span<const std::byte> bytes_of(const Piece& piece, const ShardLayout::Block& block) {
  TESSERA_CHECK(piece.data.device() == Device::Cpu, piece.name + " is written from host memory");
  return {static_cast<const std::byte*>(piece.data.data()) + block.first, static_cast<size_t>(block.bytes)};
}

WrittenShard write_shard(Storage& storage, const std::string& directory, int rank, const ShardLayout& layout,
                         BlockSource source, const Failpoint& failpoint) {
  std::vector<Box> boxes = layout.boxes();
  HashedFile file(storage, directory, shard_name(rank), layout.bytes());
  reach(failpoint, "shard_created");
  for (const ShardLayout::Block& block : layout.blocks()) {
    Box& box = boxes[block.piece];
    if (block.first == 0) append_structures(layout, box.offset, file);
    TESSERA_CHECK_EQ(file.size(), box.offset + block.first, "datasets do not overlap");
    const auto bytes = source(block);
    box.blocks.push_back(hash128(bytes));
    file.append(bytes);
  }
  append_structures(layout, layout.bytes(), file);

  WrittenShard written;
  written.data = file.finish();
  reach(failpoint, "shard_written");
  written.index_bytes = encode_index(boxes);
  HashedFile index(storage, directory, shard_index_name(rank), std::ssize(written.index_bytes));
  index.append(std::as_bytes(std::span(written.index_bytes)));
  written.index = index.finish();
  reach(failpoint, "index_written");
  return written;
}

}  // namespace tessera
