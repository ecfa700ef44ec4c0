// Stage 3: weights that are whole only between GATHER and RELEASE.
//
// GATHER starts the all-gathers, which run on beside the blocks before; who reads the weights waits for them.
//
// No more than two GATHERs of a rank are alive at once (parallel/schedule/verify.h), the blocks that are run and the
// ones that come next; one lies at the beginning of the memory, the other at its end, so that it has to be as large as
// the two largest that the rank's lists have alive together.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "optim/ownership.h"
#include "parallel/schedule/gathers.h"
#include "tensor/context/context.h"
#include "tensor/context/threads.h"
#include "tensor/memory/arena.h"

namespace tessera {

class GatheredWeights {
 public:
  // The rows that this rank owns of a parameter.
  struct Shard {
    Parameter* parameter;
    Ownership own;
    Tensor rows;  // [own.rows, ...] compute dtype
  };

  // shards: of every parameter but parts of tied tables. The groups must have been made. capacity: bytes().
  GatheredWeights(Mesh& mesh, const Parameters& parameters, const std::vector<Shard>& shards, int64_t capacity,
                  Arena& arena);
  // The memory that the lists of this rank need.
  static int64_t bytes(const Parameters& parameters, DType compute, const std::vector<Schedule>& lists);

  // See Reducer. release() leaves values without memory.
  void gather(const Context& context, int stage, BlockRange blocks, GatherFor purpose);
  // Before every action that reads the blocks.
  void needed(int stage, BlockRange blocks);
  void release(int stage, BlockRange blocks);
  // Forgets what a step that threw has gathered.
  void reset();

 private:
  // A parameter that a block reads, and where its rows come from: itself, or the table that it is tied to.
  struct Reader {
    Parameter* parameter;
    Parameter* source;
  };
  using Blocks = std::map<std::pair<int, int>, std::vector<Reader>>;  // by stage and block
  struct Gathering {
    int stage = -1;  // -1: none
    BlockRange blocks;
    GatherFor purpose = GatherFor::Backward;
    int64_t bytes = 0;
  };

  using Requests = std::vector<Request>;

  static Blocks blocks_of(const Parameters& parameters);
  // Calls `visit(reader, offset)` for what a gathering holds; returns its bytes.
  static int64_t visit(const Blocks& blocks, const Gathering& gathering, DType compute,
                       FunctionRef<void(const Reader&, int64_t)> visit);
  std::byte* begin_of(const Gathering& gathering) const;
  Tensor place(const Gathering& gathering, const Reader& reader, int64_t offset) const;
  void start(const Context& context, const Reader& reader, const Tensor& whole, Requests& requests) const;

  DType compute_;
  Blocks blocks_;
  std::map<const Parameter*, Shard> shards_;
  std::map<const Parameter*, Comm*> groups_;
  Tensor memory_;
  std::array<Gathering, 2> alive_;     // at the memory's beginning, and at its end
  std::array<Requests, 2> under_way_;  // what fills them
};

}  // namespace tessera
