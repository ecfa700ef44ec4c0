#include "checkpoint/format/shard_index.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "checkpoint/format/manifest.h"

namespace tessera {
namespace {

constexpr std::string_view kMagic = "TESSINDX";
constexpr size_t kDtypeBytes = 8;

class Encoder {
 public:
  void raw(std::string_view bytes) { out_.append(bytes); }
  void u64(uint64_t value) {
    for (int i = 0; i < 8; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Decoder {
 public:
  Decoder(std::string_view bytes, const std::string& what) : rest_(bytes), what_(what) {}

  [[noreturn]] void fail(const std::string& rule) const {
    throw CheckpointError(fmt::format("{} is not an index: {}", what_, rule));
  }
  std::string_view raw(uint64_t count) {
    if (count > rest_.size()) fail("it is cut off");
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }
  uint64_t u64() {
    const std::string_view bytes = raw(8);
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }
  // A number that counts something: below 2^62, so that sums of two do not overflow.
  int64_t count(const char* of) {
    const uint64_t value = u64();
    if (value >> 62 != 0) fail(fmt::format("{} = {}", of, value));
    return static_cast<int64_t>(value);
  }
  uint64_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
  std::string what_;
};

std::string padded_name(DType dtype) {
  std::string text = name(dtype);
  text.resize(kDtypeBytes, '\0');
  return text;
}

Box decode_box(Decoder& in, const std::string& what, int64_t shard_bytes) {
  Box box;
  box.tensor = std::string(in.raw(in.u64()));
  const std::string_view dtype = in.raw(kDtypeBytes);
  box.dtype = checkpoint_dtype(std::string(dtype.substr(0, dtype.find('\0'))), what + ": dtype of " + box.tensor);
  if (dtype != padded_name(box.dtype)) in.fail("dtype of " + box.tensor);
  box.rows.begin = in.count("first row");
  box.rows.end = in.count("end of rows");
  box.offset = in.count("offset");
  box.bytes = in.count("bytes");
  if (box.tensor.empty()) in.fail("a box names no tensor");
  if (box.rows.empty()) in.fail(fmt::format("{} has the rows {}", box.tensor, box.rows.str()));
  if (box.offset + box.bytes > shard_bytes) {
    in.fail(fmt::format("{} ends at byte {} of a file of {}", box.tensor, box.offset + box.bytes, shard_bytes));
  }
  const int64_t blocks = block_count(box.bytes);
  if (static_cast<uint64_t>(blocks) > in.left() / sizeof(Hash128)) in.fail("it is cut off");
  box.blocks.resize(static_cast<size_t>(blocks));
  for (Hash128& hash : box.blocks) {
    hash.low = in.u64();
    hash.high = in.u64();
  }
  return box;
}

}  // namespace

std::string dataset_name(const std::string& tensor, const Interval& rows) {
  return fmt::format("{}.rows-{}-{}", tensor, rows.begin, rows.end);
}

std::optional<std::string> gap_or_overlap(const Interval& whole, std::vector<Interval>& parts) {
  std::sort(parts.begin(), parts.end(),
            [](const Interval& a, const Interval& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  int64_t next = whole.begin;
  for (const Interval& part : parts) {
    if (part.begin > next) return fmt::format("no file holds its rows {}", Interval{next, part.begin}.str());
    if (part.begin < next) return fmt::format("two files hold its rows {}", intersect(part, {whole.begin, next}).str());
    next = part.end;
  }
  if (next > whole.end)
    return fmt::format("a file holds its rows {}, and it ends before", Interval{whole.end, next}.str());
  if (next < whole.end) return fmt::format("no file holds its rows {}", Interval{next, whole.end}.str());
  return std::nullopt;
}

std::string encode_index(const std::vector<Box>& boxes) {
  Encoder out;
  out.raw(kMagic);
  out.u64(kFormat);
  out.u64(kBlockBytes);
  out.u64(boxes.size());
  for (const Box& box : boxes) {
    out.u64(box.tensor.size());
    out.raw(box.tensor);
    out.raw(padded_name(box.dtype));
    for (const int64_t number : {box.rows.begin, box.rows.end, box.offset, box.bytes}) {
      out.u64(static_cast<uint64_t>(number));
    }
    for (const Hash128& hash : box.blocks) {
      out.u64(hash.low);
      out.u64(hash.high);
    }
  }
  return out.take();
}

std::vector<Box> decode_index(std::string_view bytes, const std::string& what, int64_t shard_bytes) {
  Decoder in(bytes, what);
  if (in.raw(kMagic.size()) != kMagic) in.fail("it does not begin with TESSINDX");
  if (const uint64_t format = in.u64(); format != kFormat) {
    in.fail(fmt::format("format {}, and this program reads format {}", format, kFormat));
  }
  if (const uint64_t block = in.u64(); block != kBlockBytes) in.fail(fmt::format("blocks of {} bytes", block));
  const uint64_t count = in.u64();
  std::vector<Box> boxes;
  for (uint64_t i = 0; i < count; ++i) boxes.push_back(decode_box(in, what, shard_bytes));
  if (in.left() != 0) in.fail(fmt::format("{} bytes follow its last box", in.left()));
  return boxes;
}

}  // namespace tessera
