#include "checkpoint/format/manifest.h"

#include <fmt/core.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <set>
#include <vector>

#include "checkpoint/format/hash.h"
#include "checkpoint/format/names.h"
#include "checkpoint/manifest.pb.h"

namespace tessera {
namespace {

constexpr std::string_view kTrailer = "# xxh3-128: ";
constexpr int64_t kMaxElements = int64_t{1} << 56;

// Keeps the first error: those after it follow from it.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text.empty()) text = fmt::format("line {}, column {}: {}", line + 1, column + 1, message);
  }
  std::string text;
};

class Checker {
 public:
  explicit Checker(const std::string& what) : what_(what) {}

  void require(bool condition, const std::string& rule) const {
    if (!condition) throw CheckpointError(fmt::format("{}: {}", what_, rule));
  }

  void file(const Manifest::File& file) {
    const std::string& name = file.name();
    require(!name.empty() && name.find('/') == std::string::npos && name != "." && name != "..",
            fmt::format("'{}' is not the name of a file beside it", name));
    require(file.bytes() >= 0, fmt::format("{} has {} bytes", name, file.bytes()));
    require(Hash128::parse(file.xxh3_128()).has_value(), fmt::format("the hash of {} is not 32 digits", name));
    require(files_.insert(name).second, fmt::format("{} is named twice", name));
  }

  void tensor(const Manifest::Tensor& tensor) {
    const std::string& name = tensor.name();
    require(!name.empty(), "a tensor has no name");
    require(tensors_.insert(name).second, fmt::format("tensor {} is named twice", name));
    require(tensor.dim_size() >= 1 && tensor.dim_size() <= Shape::kMaxRank,
            fmt::format("tensor {} has {} dims, not 1 to {}", name, tensor.dim_size(), Shape::kMaxRank));
    int64_t elements = 1;
    for (const int64_t dim : tensor.dim()) {
      require(dim >= 0 && dim <= kMaxElements, fmt::format("tensor {} has a dim of {}", name, dim));
      require(dim == 0 || elements <= kMaxElements / dim, fmt::format("tensor {} is too large to be true", name));
      elements *= dim == 0 ? 1 : dim;
    }
    checkpoint_dtype(tensor.dtype(), fmt::format("{}: tensor {}", what_, name));
  }

 private:
  std::string what_;
  std::set<std::string> files_;
  std::set<std::string> tensors_;
};

}  // namespace

std::string write_manifest(const Manifest& manifest) {
  std::string text;
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  TESSERA_CHECK(printer.PrintToString(manifest, &text), "a manifest can be printed");
  return text + std::string(kTrailer) + hash128(text).hex() + "\n";
}

void parse_manifest(const std::string& text, const std::string& what, Manifest& manifest) {
  Checker checker(what);
  const size_t trailer_size = kTrailer.size() + 32 + 1;
  checker.require(text.size() >= trailer_size, "cut off: it does not end with the line of its own hash");
  const std::string_view trailer = std::string_view(text).substr(text.size() - trailer_size);
  const std::string body = text.substr(0, text.size() - trailer_size);
  checker.require(trailer.starts_with(kTrailer) && trailer.ends_with('\n') && (body.empty() || body.ends_with('\n')),
                  "cut off or changed: it does not end with the line of its own hash");
  const auto hash = Hash128::parse(trailer.substr(kTrailer.size(), 32));
  checker.require(hash.has_value() && *hash == hash128(body), "changed: its text does not match its own hash");

  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  manifest.Clear();
  checker.require(parser.ParseFromString(body, &manifest), error.text);
  checker.require(manifest.format() == kFormat,
                  fmt::format("format {}, and this program reads format {}", manifest.format(), kFormat));
  checker.require(manifest.step() >= 0, fmt::format("step {}", manifest.step()));
  for (const auto& tensor : manifest.tensor()) checker.tensor(tensor);
  checker.require(manifest.shard_size() > 0, "it names no shards");
  for (const auto& shard : manifest.shard()) {
    checker.file(shard.data());
    checker.file(shard.index());
  }
  if (manifest.has_view()) checker.file(manifest.view());
}

int64_t stored_bytes(const Manifest& manifest) {
  int64_t bytes = manifest.view().bytes();
  for (const auto& shard : manifest.shard()) bytes += shard.data().bytes() + shard.index().bytes();
  return bytes;
}

Shape tensor_shape(const Manifest& manifest, int index) {
  const auto& tensor = manifest.tensor(index);
  const std::vector<int64_t> dims(tensor.dim().begin(), tensor.dim().end());
  return Shape(std::span<const int64_t>(dims));
}

DType tensor_dtype(const Manifest& manifest, int index) {
  return checkpoint_dtype(manifest.tensor(index).dtype(), manifest.tensor(index).name());
}

DType checkpoint_dtype(const std::string& text, const std::string& what) {
  try {
    return parse_dtype(text, what);
  } catch (const UsageError& error) {
    throw CheckpointError(error.what());
  }
}

std::string config_text(const Manifest& manifest) {
  std::string text;
  for (int i = 0; i < manifest.config_size(); ++i) text.append(i == 0 ? "" : "\n").append(manifest.config(i));
  return text;
}

void set_config_text(Manifest& manifest, std::string_view text) {
  manifest.clear_config();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    manifest.add_config(std::string(text.substr(begin, end - begin)));
    begin = end + 1;
  }
}

}  // namespace tessera
