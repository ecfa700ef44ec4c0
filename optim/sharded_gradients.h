// Stages 1 to 3: a rank ends up with the sums of the rows that it owns (optim/ownership.h).
//
// Backward adds into whole gradients [parts * ceil(rows / parts), ...], whose parts are what the wire carries. At stage
// 1 every parameter has one of its own, reduced once a step, in place. From stage 2 on those that BACKWARD_WEIGHT alone
// adds to lie in an area that all blocks of this rank take in turns: each REDUCE, one a microbatch, sums it over the
// ranks, adds the rows that this rank owns to their sum, and lets the area go, zeroed. Norms and the head's table,
// which other actions add to as well, keep whole gradients of their own.
//
// Where several groups own the same rows (hybrid sharding), the last REDUCE of a step adds their sums up.
#pragma once

#include <optional>

#include "optim/gradient_wire.h"
#include "optim/gradients.h"

namespace tessera {

class ShardedGradients : public Gradients {
 public:
  struct Options {
    int zero_stage = 1;
    DType compute = DType::F32;
    WireFormat wire = WireFormat::Full;
  };

  // Gives the parameters' gradients their memory. The groups must have been made (Mesh::make_groups).
  ShardedGradients(Mesh& mesh, const Parameters& parameters, const Options& options, Device device);
  // Exactly what the constructor takes on this rank.
  static int64_t bytes(const Parameters& parameters, const MeshShape& mesh, int rank, const Options& options);

  void clear(Context& context) override;
  // At stages 2 and 3 every BACKWARD_WEIGHT of a block is followed by its REDUCE before that of another block.
  void reduce(Context& context, int stage, BlockRange blocks, bool last) override;

 private:
  struct Piece {
    Parameter* parameter;
    Ownership own;
    bool kept;     // has a whole gradient of its own
    Tensor whole;  // [parts * rows of a part, ...]
    Tensor sum;    // [own.rows, ...]; a view of whole where that is kept
    Comm* sharers = nullptr;
    Comm* far = nullptr;  // the groups that own the same rows; null: none
  };

  static std::vector<Piece> pieces_of(const Parameters& parameters, const MeshShape& mesh, int rank, int zero_stage);
  // Takes everything; returns the area that blocks take in turns.
  static Tensor lay_out(std::vector<Piece>& pieces, DType accumulation, Arena& arena);
  static GradientWire make_wire(const std::vector<Piece>& pieces, const Options& options, Arena& arena);
  void reduce(Context& context, const Piece& piece, bool last) const;

  std::vector<Piece> pieces_;
  Tensor area_;
  std::optional<GradientWire> wire_;
};

}  // namespace tessera
