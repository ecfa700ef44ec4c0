// tessera checkpoint list | inspect | verify | diff | prune | reshard: what checkpoints there are, what they hold,
// whether each byte of them is what was saved, in what two differ; making room, and copies in another number of files.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "checkpoint/format/names.h"
#include "checkpoint/inspect.h"
#include "checkpoint/reshard.h"
#include "checkpoint/retention.h"
#include "checkpoint/scan.h"
#include "checkpoint/verify.h"
#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/commands/table.h"
#include "launch/process/host.h"
#include "tensor/check.h"

namespace tessera {
namespace {

struct Arguments {
  std::string path, other;
  bool as_json = false;
  bool histogram = false, dry_run = false;
  Retention retention;
  int shards = 1;
};

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
  Table table({{"step", Column::Align::Right, 10},
               {"size"},
               {"age"},
               {"layout", Column::Align::Left},
               {"state", Column::Align::Left}});
  for (const auto& entry : entries) {
    const int64_t age = std::max<int64_t>(0, now - entry.modified);
    const bool valid = entry.state == CheckpointEntry::State::Valid;
    table.add({plain(entry.step),
               {entry.bytes, valid ? format_bytes(static_cast<double>(entry.bytes)) : "-"},
               {age, format_duration(static_cast<double>(age))},
               entry.layout,
               state_of(entry)},
              {.note = entry.problem, .members = Json::Object{{"problem", entry.problem}, {"path", entry.path}}});
  }
  table.print();
  if (entries.empty()) fmt::print("no checkpoint in {}\n", folder);
  if (arguments.as_json) print_json(Json::Object{{"directory", folder}, {"checkpoints", table.json()}});
  return 0;
}

// A bar for each power of two, the longest of 50 marks.
std::string magnitudes(const TensorSummary& tensor) {
  std::string lines;
  int64_t most = 1;
  for (const auto& [exponent, count] : tensor.magnitudes) most = std::max(most, count);
  if (tensor.zeros > 0) lines += fmt::format("  {:>8} {:>12}\n", "0", tensor.zeros);
  for (const auto& [exponent, count] : tensor.magnitudes) {
    lines += fmt::format("  {:>8} {:>12}  {:#<{}}\n", fmt::format("2^{}", exponent), count, "", 1 + 49 * count / most);
  }
  return lines;
}

int run_inspect(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader reader(storage, one_checkpoint(storage, arguments.path));
  const CheckpointInfo& info = reader.info();
  fmt::print("{}\nstep {}, samples {}, tokens {}\nlayout {}\n", info.path, info.step, info.samples, info.tokens,
             info.layout);
  for (const auto& [name, version] : info.versions) fmt::print("{} {}\n", name, version);
  for (const auto& [name, value] : info.cursors.numbers) fmt::print("{} = {}\n", name, value);

  Table table({{"tensor", Column::Align::Left},
               {"shape", Column::Align::Left},
               {"dtype", Column::Align::Left},
               {"norm"},
               {"min"},
               {"max"},
               {"non_finite"}});
  int64_t elements = 0, size = 0;
  for (const auto& tensor : inspect(reader)) {
    Json counts = Json::Array();
    for (const auto& [exponent, count] : tensor.magnitudes) counts.push_back(Json::Array{exponent, count});
    const auto sizes = tensor.shape.dims();
    table.add({tensor.name,
               {Json::Array(sizes.begin(), sizes.end()), tensor.shape.str()},
               name(tensor.dtype),
               real(tensor.norm, ".6g"),
               real(tensor.min, ".6g"),
               real(tensor.max, ".6g"),
               tensor.non_finite},
              {.below = arguments.histogram ? magnitudes(tensor) : "",
               .members = Json::Object{{"zeros", tensor.zeros}, {"magnitudes", std::move(counts)}}});
    elements += tensor.shape.size();
    size += tensor.shape.size() * size_of(tensor.dtype);
  }
  fmt::print("\n");
  table.print();
  fmt::print("{}, {}, {}\n", counted(static_cast<int64_t>(table.rows()), "tensor"), counted(elements, "element"),
             format_bytes(static_cast<double>(size)));
  if (arguments.as_json) {
    print_json(Json::Object{{"path", info.path},
                            {"step", info.step},
                            {"samples", info.samples},
                            {"tokens", info.tokens},
                            {"layout", info.layout},
                            {"versions", info.versions},
                            {"cursors", info.cursors.numbers},
                            {"text_cursors", info.cursors.texts},
                            {"config", info.config},
                            {"elements", elements},
                            {"bytes", size},
                            {"tensors", table.json()}});
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

// So that what is found is known to retention and to the next resume; a checkpoint that cannot be written to stays as it
// is.
void remember(Storage& storage, const Verification& result) {
  try {
    if (result.ok())
      clear_damage(storage, result.path);
    else
      mark_damaged(storage, result.path, result.problems.front());
  } catch (const Error&) {
  }
}

int run_verify(const Arguments& arguments) {
  PosixStorage storage;
  Table table({{"state", Column::Align::Left},
               {"path", Column::Align::Left},
               {"files", Column::Align::Right, 6},
               {"blocks", Column::Align::Right, 8},
               {"bytes", Column::Align::Right, 10}},
              Table::Printing::Rows);  // each as it was read, which takes long
  bool all_valid = true;
  for (const std::string& path : checkpoints_to_verify(storage, arguments.path)) {
    const Verification result = verify(storage, path);
    remember(storage, result);
    std::string problems;
    for (const std::string& problem : result.problems) problems += fmt::format("        {}\n", problem);
    all_valid = all_valid && result.ok();
    table.add({result.ok() ? "valid" : "broken", path, result.files, result.blocks, bytes(result.bytes)},
              {.below = problems, .members = Json::Object{{"problems", result.problems}}});
  }
  if (arguments.as_json) print_json(Json::Object{{"valid", all_valid}, {"checkpoints", table.json()}});
  return static_cast<int>(all_valid ? ExitCode::Done : ExitCode::NoCheckpoint);
}

int run_diff(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader a(storage, one_checkpoint(storage, arguments.path));
  CheckpointReader b(storage, one_checkpoint(storage, arguments.other));
  const CheckpointDifference difference = diff(a, b);
  fmt::print("A {}\nB {}\n", a.info().path, b.info().path);
  for (const std::string& line : difference.cursors) fmt::print("{}\n", line);

  Table table({{"tensor", Column::Align::Left},
               {"differing"},
               {"elements"},
               {"max_difference"},
               {"relative_norm"},
               {"only", Column::Align::Left}});
  for (const auto& tensor : difference.tensors) {
    table.add({tensor.name, tensor.differing, tensor.elements, real(tensor.max_difference, ".6g"),
               real(tensor.relative_norm, ".6g"), tensor.only});
  }
  if (!difference.tensors.empty()) table.print();
  fmt::print("{} compared bit by bit: {}\n", counted(difference.tensors_compared, "tensor"),
             difference.equal() ? "equal" : fmt::format("{} differ", difference.tensors.size()));
  if (arguments.as_json) {
    print_json(Json::Object{{"equal", difference.equal()},
                            {"tensors_compared", difference.tensors_compared},
                            {"cursors", difference.cursors},
                            {"tensors", table.json()}});
  }
  return difference.equal() ? 0 : kAnswerIsNo;
}

// Reads again what would have to be verified before anything may go: the newest ones that are to be kept. A dry run
// leaves no mark on the disk.
std::vector<CheckpointEntry> verify_kept(Storage& storage, const std::string& folder, const Arguments& arguments) {
  std::vector<CheckpointEntry> entries = scan(storage, folder);
  int seen = 0;
  for (auto entry = entries.rbegin(); entry != entries.rend() && seen < arguments.retention.keep_last; ++entry) {
    if (entry->state != CheckpointEntry::State::Valid) continue;
    ++seen;
    if (entry->verified) continue;
    const Verification result = verify(storage, entry->path);
    entry->verified = result.ok();
    if (result.ok() && !arguments.dry_run) mark_verified(storage, entry->path);
    fmt::print("{}  {}\n", result.ok() ? "verified" : "broken  ", entry->path);
    for (const std::string& problem : result.problems) fmt::print("          {}\n", problem);
  }
  return entries;
}

int run_prune(const Arguments& arguments) {
  PosixStorage storage;
  const std::string folder = checkpoints_folder(storage, arguments.path);
  const std::vector<CheckpointEntry> entries = verify_kept(storage, folder, arguments);
  std::vector<std::string> names;
  if (arguments.dry_run) {
    for (const CheckpointEntry& entry : superfluous(entries, arguments.retention)) names.push_back(entry.name);
  } else {
    names = prune(storage, folder, arguments.retention);
  }
  for (const std::string& name : names)
    fmt::print("{}  {}\n", arguments.dry_run ? "would remove" : "removed ", join(folder, name));
  if (names.empty()) fmt::print("nothing to remove in {}\n", folder);
  if (arguments.as_json)
    print_json(Json::Object{{"directory", folder}, {arguments.dry_run ? "would_remove" : "removed", names}});
  return 0;
}

int run_reshard(const Arguments& arguments) {
  PosixStorage storage;
  CheckpointReader reader(storage, one_checkpoint(storage, arguments.path));
  const std::string path = reshard(reader, storage, arguments.other, arguments.shards);
  fmt::print("{} in {}: {}\n", reader.info().path, counted(arguments.shards, "shard"), path);
  if (arguments.as_json)
    print_json(Json::Object{{"from", reader.info().path}, {"path", path}, {"shards", arguments.shards}});
  return 0;
}

// A subcommand with --json that runs `body`.
Command add(Command& checkpoint, const char* name, const char* help, int (*body)(const Arguments&),
            const std::shared_ptr<Arguments>& arguments) {
  Command command = checkpoint.add_command(name, help);
  command.add_json(arguments->as_json);
  command.runs([arguments, body] { return body(*arguments); });
  return command;
}

}  // namespace

void add_checkpoint(Command& program) {
  Command checkpoint = program.add_group("checkpoint", "List, inspect, verify, compare, copy and remove checkpoints");
  const auto arguments = std::make_shared<Arguments>();
  const char* either = "A checkpoint, or a run directory for its newest valid one";

  add(checkpoint, "list", "The checkpoints of a run: step, size, age, layout, state", run_list, arguments)
      .add_option("DIR", &arguments->path, "A run directory or its checkpoints/ folder")
      .required();
  Command look =
      add(checkpoint, "inspect", "What a checkpoint holds: tensors, shapes, norms, extremes, non-finite elements",
          run_inspect, arguments);
  look.add_option("CHECKPOINT", &arguments->path, either).required();
  look.add_flag("--histogram", arguments->histogram, "How many elements are of which power of two");
  add(checkpoint, "verify", "Read every byte and check it; names what is wrong, and ends with 4 when something is",
      run_verify, arguments)
      .add_option("CHECKPOINT", &arguments->path, "A checkpoint, or a run directory for all of its checkpoints")
      .required();
  Command compare =
      add(checkpoint, "diff", "Which tensors of two checkpoints differ, and by how much; ends with 5 when any do",
          run_diff, arguments);
  compare.add_option("A", &arguments->path, either).required();
  compare.add_option("B", &arguments->other, either).required();

  Command room =
      add(checkpoint, "prune", "Remove what is superfluous behind verified newer checkpoints", run_prune, arguments);
  room.add_option("DIR", &arguments->path, "A run directory or its checkpoints/ folder; no run may be saving there")
      .required();
  room.add_option("--keep-last", &arguments->retention.keep_last, "Newest valid ones to keep").shows_default();
  room.add_option("--keep-every", &arguments->retention.keep_every, "Keep steps that this divides for ever; 0: none")
      .shows_default()
      .not_negative();

  room.add_flag("--dry-run", arguments->dry_run, "Say what would be removed, and change nothing");

  Command copy = add(checkpoint, "reshard", "Copy a checkpoint into another number of shards", run_reshard, arguments);
  copy.add_option("CHECKPOINT", &arguments->path, either).required();
  copy.add_option("DIR", &arguments->other, "Where step-NNNNNNNN is written").required();
  copy.add_option("--shards", &arguments->shards, "Number of shard files").required();
}

}  // namespace tessera
