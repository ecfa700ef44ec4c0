#include "launch/run/announcement.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "launch/run.pb.h"
#include "parallel/comm/agreement.h"

namespace tessera {
namespace {

std::string plural(int64_t n, const char* thing) { return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s"); }

// The lines of all ranks, which have the same categories.
std::vector<RanksMemoryLine> over_ranks(const std::vector<MemoryLine>& lines, Comm& world) {
  std::vector<RanksMemoryLine> rows;
  std::vector<double> worst, mean;
  std::string categories;
  for (const MemoryLine& line : with_totals(lines)) {
    categories += line.category + "\n";
    rows.push_back({line.category});
    worst.push_back(static_cast<double>(line.bytes));
    mean.push_back(static_cast<double>(line.bytes) / world.size());
  }
  TESSERA_CHECK(broadcast_text(world, categories, 0) == categories, "all ranks have memory of the same categories");
  const Shape shape{std::ssize(worst)};
  world.all_reduce_max(Tensor(std::span<double>(worst), shape));
  world.all_reduce_sum(Tensor(std::span<double>(mean), shape));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].worst = worst[i];
    rows[i].mean = mean[i];
  }
  return rows;
}

}  // namespace

std::string layout_text(const MeshShape& mesh) {
  return fmt::format("pp={} dp={} cp={} tp={}", mesh.pp, mesh.dp, mesh.cp, mesh.tp);
}

std::vector<MemoryLine> run_memory(Phase& phase, int64_t staging_bytes) {
  std::vector<MemoryLine> lines = phase.memory();
  lines.push_back({"checkpoint staging", staging_bytes});
  return lines;
}

void announce(spdlog::logger& console, Phase& phase, Session& session, int64_t staging_bytes) {
  const RunConfig& config = phase.config();
  Assembly& assembly = phase.assembly();
  console.info("{}: {} parameters, {}; a step is {} of {} tokens, in {} x {} on each data-parallel rank",
               config.run().name(), assembly.model_parameters(),
               RunSection::ComputeDtype_Name(config.run().compute_dtype()),
               plural(config.data().global_batch_size(), "sequence"), config.data().sequence_length(),
               phase.loader().microbatches(), config.data().micro_batch_size());
  console.info("{} ({}), {} each on {}", plural(session.world.size(), "rank"), layout_text(assembly.mesh().shape()),
               plural(session.threads, "thread"), device_text(assembly.context()));
  if (config.run().cuda_graphs() != CudaGraphs::OFF && assembly.context().device() == Device::Cuda &&
      !assembly.stage(0).records())
    console.info(
        "run.cuda_graphs = {} records nothing in this layout: with tp or cp above 1 blocks talk to other ranks",
        CudaGraphs::Mode_Name(config.run().cuda_graphs()));
  console.info(memory_table(over_ranks(run_memory(phase, staging_bytes), session.world), session.world.size()));
}

}  // namespace tessera
