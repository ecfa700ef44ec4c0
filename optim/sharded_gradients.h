// Stages 1 to 3: a rank ends up with the sums of the rows that it owns (optim/ownership.h).
//
// Backward adds into whole gradients [parts * ceil(rows / parts), ...], whose parts are what the wire carries. At stage
// 1 every parameter has one of its own, reduced once a step, in place. From stage 2 on those that BACKWARD_WEIGHT alone
// adds to lie in one of two areas that the blocks of this rank take in turns: while one is filled, the other is summed
// over the ranks by its block's REDUCE, one a microbatch; then the rows that this rank owns are added to their sum, and
// the area is zeroed for the next block. Norms and the head's table, which other actions add to as well, keep whole
// gradients of their own.
//
// Where several groups own the same rows (hybrid sharding), the last REDUCE of a step adds their sums up.
#pragma once

#include <array>
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
  // At stages 2 and 3 a block at a time: its REDUCE comes before the next one's gradients are needed.
  void needed(Context& context, int stage, BlockRange blocks) override;
  void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) override;

 protected:
  void finish(Context& context) override;

 private:
  static constexpr int kAreas = 2;
  struct Piece {
    Parameter* parameter;
    Ownership own;
    bool kept;                         // has a whole gradient of its own
    std::array<Tensor, kAreas> whole;  // [parts * rows of a part, ...] by area; twice the same where it is kept
    Tensor sum;                        // [own.rows, ...]; a view of whole where that is kept
    Comm* sharers = nullptr;
    Comm* replicas = nullptr;  // the ranks that own the same rows in other ZeRO groups; null: there are none
  };

  // A REDUCE that goes on.
  struct UnderWay {
    std::vector<const Piece*> pieces;
    std::vector<Request> requests;  // by piece
    int area = 0;
    ReduceTurn turn = ReduceTurn::Earlier;
  };

  static std::vector<Piece> pieces_of(const Parameters& parameters, const MeshShape& mesh, int rank, int zero_stage);
  // Takes everything; returns the areas that blocks take in turns.
  static std::array<Tensor, kAreas> lay_out(std::vector<Piece>& pieces, DType accumulation, Arena& arena);
  static GradientWire make_wire(const std::vector<Piece>& pieces, const Options& options, Arena& arena);
  void end(Context& context, const Piece& piece) const;

  std::vector<Piece> pieces_;
  std::array<Tensor, kAreas> areas_;
  int area_ = 0;  // that is being filled, or is to be filled next
  UnderWay under_way_;
  std::optional<GradientWire> wire_;
};

}  // namespace tessera
