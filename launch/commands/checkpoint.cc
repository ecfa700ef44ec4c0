// tessera checkpoint list | inspect | verify | diff | prune | reshard: what checkpoints there are, what they hold,
// whether each byte of them is what was saved, in what two differ; making room, and copies in another number of files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "checkpoint/format/names.h"
#include "checkpoint/inspect.h"
#include "checkpoint/reshard.h"
#include "checkpoint/retention.h"
#include "checkpoint/scan.h"
#include "checkpoint/verify.h"
#include "launch/commands/command.h"
#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using json = nlohmann::ordered_json;

struct Arguments {
  std::string path, other;
  bool as_json = false;
  bool histogram = false;
  Retention retention;
  int shards = 1;
};

void print_json(const json& object) { fmt::print("{}\n", object.dump(-1, ' ', false, json::error_handler_t::replace)); }

// A published or temporary checkpoint, whole or not.
bool is_checkpoint(Storage& storage, const std::string& path) {
  const std::string name = base_name(path);
  return published_step(name) || temporary_step(name) || storage.exists(join(path, kManifestName));
}

// The folder that holds the checkpoints of a run directory, or the folder itself.
std::string checkpoints_folder(Storage& storage, const std::string& path) {
  if (!storage.exists(path)) throw CheckpointError(path + " does not exist: give a checkpoint or a run directory");
  const std::string inner = join(path, "checkpoints");
  return storage.exists(inner) ? inner : path;
}

// The checkpoint that is meant: `path`, or the newest valid one in it.
std::string one_checkpoint(Storage& storage, const std::string& path) {
  if (is_checkpoint(storage, path)) return path;
  const std::string folder = checkpoints_folder(storage, path);
  const auto entries = scan(storage, folder);
  const auto newest = std::find_if(entries.rbegin(), entries.rend(), [](const CheckpointEntry& entry) {
    return entry.state == CheckpointEntry::State::Valid;
  });
  if (newest == entries.rend()) throw CheckpointError(folder + " holds no valid checkpoint");
  return newest->path;
}

const char* state_of(const CheckpointEntry& entry) { return entry.verified ? "verified" : name(entry.state); }

int run_list(const Arguments& arguments) {
  PosixStorage storage;
  const std::string folder = checkpoints_folder(storage, arguments.path);
  const auto entries = scan(storage, folder);
  const int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  json rows = json::array();
  size_t width = std::string_view("layout").size();
  for (const auto& entry : entries) width = std::max(width, entry.layout.size());
  fmt::print("{:>10}{:>12}{:>10}  {:<{}}  {}\n", "step", "size", "age", "layout", width, "state");
  for (const auto& entry : entries) {
    const int64_t age = std::max<int64_t>(0, now - entry.modified);
    const bool valid = entry.state == CheckpointEntry::State::Valid;
    fmt::print("{:>10}{:>12}{:>10}  {:<{}}  {}{}\n", entry.step,
               valid ? format_bytes(static_cast<double>(entry.bytes)) : "-", format_duration(static_cast<double>(age)),
               entry.layout, width, state_of(entry), entry.problem.empty() ? "" : ": " + entry.problem);
    rows.push_back({{"step", entry.step},
                    {"size", entry.bytes},
                    {"age", age},
                    {"layout", entry.layout},
                    {"state", state_of(entry)},
                    {"problem", entry.problem},
                    {"path", entry.path}});
  }
  if (entries.empty()) fmt::print("no checkpoint in {}\n", folder);
  if (arguments.as_json) print_json({{"directory", folder}, {"checkpoints", std::move(rows)}});
  return 0;
}

// A bar for each power of two, the longest of 50 marks.
void print_magnitudes(const TensorSummary& tensor) {
  int64_t most = 1;
  for (const auto& [exponent, count] : tensor.magnitudes) most = std::max(most, count);
  if (tensor.zeros > 0) fmt::print("  {:>8} {:>12}\n", "0", tensor.zeros);
  for (const auto& [exponent, count] : tensor.magnitudes) {
    fmt::print("  {:>8} {:>12}  {:#<{}}\n", fmt::format("2^{}", exponent), count, "", 1 + 49 * count / most);
  }
}

int run_inspect(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader reader(storage, one_checkpoint(storage, arguments.path));
  const CheckpointInfo& info = reader.info();
  fmt::print("{}\nstep {}, samples {}, tokens {}\nlayout {}\n", info.path, info.step, info.samples, info.tokens,
             info.layout);
  for (const auto& [name, version] : info.versions) fmt::print("{} {}\n", name, version);
  for (const auto& [name, value] : info.cursors.numbers) fmt::print("{} = {}\n", name, value);

  const auto tensors = inspect(reader);
  size_t width = std::string_view("tensor").size();
  size_t shape_width = std::string_view("shape").size();
  for (const auto& tensor : tensors) {
    width = std::max(width, tensor.name.size());
    shape_width = std::max(shape_width, tensor.shape.str().size());
  }
  json rows = json::array();
  int64_t elements = 0, bytes = 0;
  fmt::print("\n{:<{}}  {:<{}}  {:<5}  {:>12}  {:>12}  {:>12}  {:>10}\n", "tensor", width, "shape", shape_width,
             "dtype", "norm", "min", "max", "non_finite");
  for (const auto& tensor : tensors) {
    fmt::print("{:<{}}  {:<{}}  {:<5}  {:>12.6g}  {:>12.6g}  {:>12.6g}  {:>10}\n", tensor.name, width,
               tensor.shape.str(), shape_width, name(tensor.dtype), tensor.norm, tensor.min, tensor.max,
               tensor.non_finite);
    if (arguments.histogram) print_magnitudes(tensor);
    json magnitudes = json::array();
    for (const auto& [exponent, count] : tensor.magnitudes) magnitudes.push_back({exponent, count});
    rows.push_back({{"tensor", tensor.name},
                    {"shape", tensor.shape.dims()},
                    {"dtype", name(tensor.dtype)},
                    {"norm", tensor.norm},
                    {"min", tensor.min},
                    {"max", tensor.max},
                    {"non_finite", tensor.non_finite},
                    {"zeros", tensor.zeros},
                    {"magnitudes", std::move(magnitudes)}});
    elements += tensor.shape.size();
    bytes += tensor.shape.size() * size_of(tensor.dtype);
  }
  fmt::print("{} tensors, {} elements, {}\n", tensors.size(), elements, format_bytes(static_cast<double>(bytes)));
  if (arguments.as_json) {
    print_json({{"path", info.path},
                {"step", info.step},
                {"samples", info.samples},
                {"tokens", info.tokens},
                {"layout", info.layout},
                {"versions", info.versions},
                {"cursors", info.cursors.numbers},
                {"text_cursors", info.cursors.texts},
                {"config", info.config},
                {"elements", elements},
                {"bytes", bytes},
                {"tensors", std::move(rows)}});
  }
  return 0;
}

std::vector<std::string> checkpoints_to_verify(Storage& storage, const std::string& path) {
  if (is_checkpoint(storage, path)) return {path};
  const std::string folder = checkpoints_folder(storage, path);
  std::vector<std::string> paths;
  for (const std::string& name : published_names(storage, folder)) paths.push_back(join(folder, name));
  std::reverse(paths.begin(), paths.end());
  if (paths.empty()) throw CheckpointError(folder + " holds no checkpoint");
  return paths;
}

int run_verify(const Arguments& arguments) {
  PosixStorage storage;
  json rows = json::array();
  bool all_valid = true;
  for (const std::string& path : checkpoints_to_verify(storage, arguments.path)) {
    const Verification result = verify(storage, path);
    const char* state = result.ok() ? "valid" : "broken";
    fmt::print("{:<6}  {}  {} files, {} blocks, {}\n", state, path, result.files, result.blocks,
               format_bytes(static_cast<double>(result.bytes)));
    for (const std::string& problem : result.problems) fmt::print("        {}\n", problem);
    all_valid = all_valid && result.ok();
    rows.push_back({{"path", path},
                    {"state", state},
                    {"files", result.files},
                    {"blocks", result.blocks},
                    {"bytes", result.bytes},
                    {"problems", result.problems}});
  }
  if (arguments.as_json) print_json({{"valid", all_valid}, {"checkpoints", std::move(rows)}});
  return static_cast<int>(all_valid ? ExitCode::Done : ExitCode::NoCheckpoint);
}

int run_diff(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader a(storage, one_checkpoint(storage, arguments.path));
  CheckpointReader b(storage, one_checkpoint(storage, arguments.other));
  const CheckpointDifference difference = diff(a, b);
  fmt::print("A {}\nB {}\n", a.info().path, b.info().path);
  for (const std::string& line : difference.cursors) fmt::print("{}\n", line);

  size_t width = std::string_view("tensor").size();
  for (const auto& tensor : difference.tensors) width = std::max(width, tensor.name.size());
  if (!difference.tensors.empty()) {
    fmt::print("{:<{}}  {:>14}  {:>14}  {:>14}  {:>14}\n", "tensor", width, "differing", "elements", "max_difference",
               "relative_norm");
  }
  json rows = json::array();
  for (const auto& tensor : difference.tensors) {
    if (tensor.only.empty()) {
      fmt::print("{:<{}}  {:>14}  {:>14}  {:>14.6g}  {:>14.6g}\n", tensor.name, width, tensor.differing,
                 tensor.elements, tensor.max_difference, tensor.relative_norm);
    } else {
      fmt::print("{:<{}}  {}\n", tensor.name, width, tensor.only);
    }
    rows.push_back({{"tensor", tensor.name},
                    {"differing", tensor.differing},
                    {"elements", tensor.elements},
                    {"max_difference", tensor.max_difference},
                    {"relative_norm", tensor.relative_norm},
                    {"only", tensor.only}});
  }
  fmt::print("{} tensors compared bit by bit: {}\n", difference.tensors_compared,
             difference.equal() ? "equal" : fmt::format("{} differ", difference.tensors.size()));
  if (arguments.as_json) {
    print_json({{"equal", difference.equal()},
                {"tensors_compared", difference.tensors_compared},
                {"cursors", difference.cursors},
                {"tensors", std::move(rows)}});
  }
  return difference.equal() ? 0 : 1;
}

// Reads again what would have to be verified before anything may go: the newest ones that are to be kept.
void verify_kept(Storage& storage, const std::string& folder, int keep_last) {
  const auto entries = scan(storage, folder);
  int seen = 0;
  for (auto entry = entries.rbegin(); entry != entries.rend() && seen < keep_last; ++entry) {
    if (entry->state != CheckpointEntry::State::Valid) continue;
    ++seen;
    if (entry->verified) continue;
    const Verification result = verify(storage, entry->path);
    if (result.ok()) mark_verified(storage, entry->path);
    fmt::print("{}  {}\n", result.ok() ? "verified" : "broken  ", entry->path);
    for (const std::string& problem : result.problems) fmt::print("          {}\n", problem);
  }
}

int run_prune(const Arguments& arguments) {
  PosixStorage storage;
  const std::string folder = checkpoints_folder(storage, arguments.path);
  verify_kept(storage, folder, arguments.retention.keep_last);
  const auto removed = prune(storage, folder, arguments.retention);
  for (const std::string& name : removed) fmt::print("removed   {}\n", join(folder, name));
  if (removed.empty()) fmt::print("nothing to remove in {}\n", folder);
  if (arguments.as_json) print_json({{"directory", folder}, {"removed", removed}});
  return 0;
}

int run_reshard(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader reader(storage, one_checkpoint(storage, arguments.path));
  const std::string path = reshard(reader, storage, arguments.other, arguments.shards);
  fmt::print("{} in {} shards: {}\n", reader.info().path, arguments.shards, path);
  if (arguments.as_json) print_json({{"from", reader.info().path}, {"path", path}, {"shards", arguments.shards}});
  return 0;
}

// A subcommand with --json that runs `body`.
CLI::App* add(CLI::App& checkpoint, const char* name, const char* help, int (*body)(const Arguments&),
              const std::shared_ptr<Arguments>& arguments, Selected& selected) {
  CLI::App* command = checkpoint.add_subcommand(name, help);
  command->add_flag("--json", arguments->as_json, "Also print one JSON object, as the last line");
  command->callback([arguments, body, &selected] { selected = [arguments, body] { return body(*arguments); }; });
  return command;
}

}  // namespace

void add_checkpoint(CLI::App& program, Selected& selected) {
  CLI::App* checkpoint =
      program.add_subcommand("checkpoint", "List, inspect, verify, compare, copy and remove checkpoints");
  checkpoint->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  const char* either = "A checkpoint, or a run directory for its newest valid one";

  add(*checkpoint, "list", "The checkpoints of a run: step, size, age, layout, state", run_list, arguments, selected)
      ->add_option("DIR", arguments->path, "A run directory or its checkpoints/ folder")
      ->required();
  CLI::App* look =
      add(*checkpoint, "inspect", "What a checkpoint holds: tensors, shapes, norms, extremes, non-finite elements",
          run_inspect, arguments, selected);
  look->add_option("CHECKPOINT", arguments->path, either)->required();
  look->add_flag("--histogram", arguments->histogram, "How many elements are of which power of two");
  add(*checkpoint, "verify", "Read every byte and check it; names what is wrong, and ends with 4 when something is",
      run_verify, arguments, selected)
      ->add_option("CHECKPOINT", arguments->path, "A checkpoint, or a run directory for all of its checkpoints")
      ->required();
  CLI::App* compare =
      add(*checkpoint, "diff", "Which tensors of two checkpoints differ, and by how much; 1 when any do", run_diff,
          arguments, selected);
  compare->add_option("A", arguments->path, either)->required();
  compare->add_option("B", arguments->other, either)->required();

  CLI::App* room = add(*checkpoint, "prune", "Remove what is superfluous behind verified newer checkpoints", run_prune,
                       arguments, selected);
  room->add_option("DIR", arguments->path, "A run directory or its checkpoints/ folder; no run may be saving there")
      ->required();
  room->add_option("--keep-last", arguments->retention.keep_last, "Newest valid ones to keep")->capture_default_str();
  room->add_option("--keep-every", arguments->retention.keep_every, "Keep steps that this divides for ever; 0: none")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);

  CLI::App* copy =
      add(*checkpoint, "reshard", "Copy a checkpoint into another number of shards", run_reshard, arguments, selected);
  copy->add_option("CHECKPOINT", arguments->path, either)->required();
  copy->add_option("DIR", arguments->other, "Where step-NNNNNNNN is written")->required();
  copy->add_option("--shards", arguments->shards, "Number of shard files")->required();
}

}  // namespace tessera
