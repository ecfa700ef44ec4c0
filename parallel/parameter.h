// A parameter: a global tensor, and the rows of it that this rank holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "tensor/context/context.h"
#include "tensor/interval.h"
#include "tensor/tensor.h"

namespace tessera {

enum class Initialisation : uint8_t { Zero, One, Normal };

struct Parameter {
  std::string name;    // global: "blocks.17.attention.qkv"
  Shape global_shape;  // stored so that its tensor-parallel dim is dim 0
  Interval rows;       // this rank's rows of dim 0; all of them when it is not split
  AxisSet replicas;  // axes along which ranks hold the same rows: each rank's gradient is a partial sum, to be added up
                     // over them
  bool decay = true;  // weight decay applies (not for norms and biases)
  Initialisation initialisation = Initialisation::Normal;
  double standard_deviation = 0.02;
  double learning_rate_factor = 1;  // of the optimizer's learning rate; weight decay goes by the rate without it
  int64_t ordinal = 0;              // its number among all parameters of the model, the same on every rank
  int64_t ordinals = 1;             // how many there are
  int stage = 0;                    // pipeline stage that it belongs to
  int block = 0;                    // of that stage's blocks; the embedding goes with the first, the head with the last
  int head_block = -1;              // of a table tied within its stage: the block whose head reads it, too; else -1

  // What the actions of a schedule do with it. Tables are read by FORWARD alone; gradients of norms are added to by
  // BACKWARD_INPUT, those of the head's table by FORWARD, all others by BACKWARD_WEIGHT alone.
  bool forward_reads_alone = false;
  bool weight_adds_alone = true;

  // ZeRO (optim/ownership.h). The memory of value and gradient is that of padded_shape(): equal parts, row by row.
  bool whole_matrix = false;  // asks for an owner of all rows, for optimizers that need whole matrices
  int parts = 1;              // ranks that share it out

  // A tied table that one rank holds at both ends of its pipeline: this one's value is that of the other, and its
  // gradient is another part of the other's. Null for all other parameters.
  Parameter* tied_to = nullptr;

  Tensor value;     // [rows, ...] compute dtype
  Tensor gradient;  // [rows, ...] accumulation dtype; backward accumulates into it

  Shape local_shape() const { return global_shape.with_rows(rows.size()); }
  Shape padded_shape() const { return global_shape.with_rows(parts * shard_rows(rows.size(), parts)); }
};

// Parameters of this rank, in the order of the model; pointers stay valid for the life of the model.
using Parameters = std::vector<Parameter*>;

// Overwrites `rows` of a parameter's initial value into x [rows, ...]; every element is a function of
// (seed, name, global index), so any shard of any mesh draws its own.
void initialise(const Context& context, const Parameter& parameter, const Interval& rows, uint64_t seed,
                const Tensor& x);

}  // namespace tessera
