#include "checkpoint/commit.h"

#include <H5public.h>
#include <fmt/core.h>
#include <google/protobuf/stubs/common.h>
#include <xxhash.h>

#include <array>
#include <map>
#include <set>

#include "checkpoint/format/hash.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/format/names.h"
#include "checkpoint/format/view.h"
#include "checkpoint/manifest.pb.h"

namespace tessera {
namespace {

void set_file(Manifest::File& out, const WrittenFile& file) {
  out.set_name(file.name);
  out.set_bytes(file.bytes);
  out.set_xxh3_128(file.hash.hex());
}

void set_texts(google::protobuf::RepeatedPtrField<Manifest::Text>& out,
               const std::map<std::string, std::string>& from) {
  for (const auto& [name, value] : from) {
    Manifest::Text& text = *out.Add();
    text.set_name(name);
    text.set_value(value);
  }
}

// What every rank must agree on.
Manifest common_part(const State& state, const SaveInfo& info) {
  Manifest manifest;
  manifest.set_format(kFormat);
  manifest.set_step(info.step);
  manifest.set_samples(info.samples);
  manifest.set_tokens(info.tokens);
  manifest.set_layout(info.layout);
  for (const auto& [name, value] : state.cursors.numbers) {
    auto& cursor = *manifest.add_cursor();
    cursor.set_name(name);
    cursor.set_value(value);
  }
  set_texts(*manifest.mutable_text_cursor(), state.cursors.texts);
  return manifest;
}

// The contributions of all ranks, put together.
class Merge {
 public:
  void add(int rank, const Contribution& contribution) {
    Manifest part;
    TESSERA_CHECK(part.ParseFromString(contribution.manifest), "contributions arrive as they were sent");
    *manifest_.add_shard() = part.shard(0);
    part.clear_shard();
    for (const auto& tensor : part.tensor()) add_tensor(tensor);
    part.clear_tensor();
    const std::string common = part.SerializeAsString();
    if (rank == 0) common_ = common;
    if (common != common_) {
      throw InternalError(fmt::format("rank {} saves another step, layout or cursor than rank 0", rank));
    }
    const auto& shard = manifest_.shard(rank);
    for (const Box& box : decode_index(contribution.index, shard.index().name(), shard.data().bytes())) {
      tensors_.at(box.tensor).parts.push_back({box.rows, shard.data().name()});
    }
  }

  // Every tensor is whole, and the manifest names it.
  Manifest finish() {
    Manifest common;
    TESSERA_CHECK(common.ParseFromString(common_), "it was serialised here");
    common.mutable_shard()->Swap(manifest_.mutable_shard());
    for (auto& [name, tensor] : tensors_) {
      std::vector<Interval> rows;
      for (const auto& part : tensor.parts) rows.push_back(part.rows);
      if (const auto problem = gap_or_overlap({0, tensor.shape[0]}, rows)) {
        throw InternalError(fmt::format("the ranks' slices do not make up {}: {}", name, *problem));
      }
      auto& out = *common.add_tensor();
      out.set_name(name);
      for (const int64_t dim : tensor.shape.dims()) out.add_dim(dim);
      out.set_dtype(tessera::name(tensor.dtype));
    }
    return common;
  }

  std::vector<ViewTensor> view() const {
    std::vector<ViewTensor> tensors;
    for (const auto& [name, tensor] : tensors_) tensors.push_back(tensor);
    return tensors;
  }

 private:
  void add_tensor(const Manifest::Tensor& tensor) {
    const std::vector<int64_t> dims(tensor.dim().begin(), tensor.dim().end());
    const Shape shape{std::span<const int64_t>(dims)};
    const DType dtype = parse_dtype(tensor.dtype(), tensor.name());
    const auto [it, fresh] = tensors_.try_emplace(tensor.name(), ViewTensor{tensor.name(), shape, dtype, {}});
    if (it->second.shape != shape || it->second.dtype != dtype) {
      throw InternalError(fmt::format("ranks disagree on {}: {} {} against {} {}", tensor.name(),
                                      it->second.shape.str(), name(it->second.dtype), shape.str(), name(dtype)));
    }
  }

  Manifest manifest_;
  std::string common_;
  std::map<std::string, ViewTensor> tensors_;
};

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::map<std::string, std::string> all_versions(const SaveInfo& info) {
  std::map<std::string, std::string> versions = info.versions;
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  versions["hdf5"] = fmt::format("{}.{}.{}", major, minor, release);
  versions["protobuf"] = google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
  versions["xxhash"] = fmt::format("{}.{}.{}", XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE);
  return versions;
}

}  // namespace

Contribution contribution(const State& state, const SaveInfo& info, const WrittenShard& written) {
  Manifest part = common_part(state, info);
  for (const StateSlice& slice : state.slices) {
    auto& tensor = *part.add_tensor();
    tensor.set_name(slice.name);
    for (const int64_t dim : slice.global_shape.dims()) tensor.add_dim(dim);
    tensor.set_dtype(name(slice.data.dtype()));
  }
  auto& shard = *part.add_shard();
  set_file(*shard.mutable_data(), written.data);
  set_file(*shard.mutable_index(), written.index);
  return {part.SerializeAsString(), written.index_bytes};
}

std::string prepare_directory(Storage& storage, const SaveInfo& info) {
  storage.create_directories(info.directory);
  const std::string suffix = temporary_name(info.step, info.id).substr(step_name(info.step).size());
  for (const auto& entry : storage.list(info.directory)) {
    const auto step = temporary_step(entry.name);
    if (step && (*step == info.step || entry.name == step_name(*step) + suffix)) {
      storage.remove_tree(join(info.directory, entry.name));
    }
  }
  const std::string temporary = join(info.directory, temporary_name(info.step, info.id));
  storage.create_directories(temporary);
  return temporary;
}

namespace {

std::string size_text(int64_t bytes) {
  if (bytes < 10 << 10) return fmt::format("{} bytes", bytes);
  constexpr std::array<const char*, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace

void check_free_space(Storage& storage, const std::string& directory, int64_t bytes) {
  const int64_t wanted = bytes + bytes / 20;
  const int64_t free = storage.free_bytes(directory);
  if (free < wanted) {
    throw IoError(fmt::format("{} has {} free, and the checkpoint needs about {}; make room or keep fewer", directory,
                              size_text(free), size_text(wanted)));
  }
}

std::string commit(Storage& storage, const std::string& temporary, const SaveInfo& info,
                   const std::vector<Contribution>& contributions, const Failpoint& failpoint) {
  Merge merge;
  for (size_t rank = 0; rank < contributions.size(); ++rank) merge.add(static_cast<int>(rank), contributions[rank]);
  Manifest manifest = merge.finish();

  const std::string view = make_view(merge.view());
  storage.write_file(join(temporary, kViewName), bytes_of(view));
  reach(failpoint, "view_written");
  set_file(*manifest.mutable_view(), {kViewName, static_cast<int64_t>(view.size()), hash128(view)});
  set_config_text(manifest, info.config);
  set_texts(*manifest.mutable_version(), all_versions(info));
  storage.write_file(join(temporary, kManifestName), bytes_of(write_manifest(manifest)));
  reach(failpoint, "manifest_written");
  storage.sync_directory(temporary);
  reach(failpoint, "directory_synced");

  const std::string path = join(info.directory, step_name(info.step));
  storage.publish(temporary, path);
  reach(failpoint, "published");
  storage.sync_directory(info.directory);
  reach(failpoint, "parent_synced");
  const std::string latest = join(info.directory, kLatestName);
  storage.write_file(latest + ".tmp", bytes_of(step_name(info.step) + "\n"));
  storage.rename(latest + ".tmp", latest);
  reach(failpoint, "latest_written");
  return path;
}

}  // namespace tessera
