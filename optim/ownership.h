// Who owns which rows of a parameter: Rajbhandari, Rasley, Ruwase and He 2020, "ZeRO". A rank keeps optimizer state for
// the rows that it owns, updates them, and gets the other ranks' from them.
//
// At stage 0 a rank owns all rows that it holds. From stage 1 on the parameter's reduction group shares them out: of n
// ranks each owns ceil(rows / n) rows in the order of ranks, the last ones fewer or none (Parameter::parts = n; memory
// and messages have n equal parts). A parameter that asks for whole matrices has one owner, rank ordinal mod n. With
// zero_group = g (hybrid sharding) groups of g neighbouring dp ranks share the rows out, every group all of them.
#pragma once

#include "parallel/parameter.h"

namespace tessera {

// The axes that a parameter's gradient is reduced over together with its stage: its replicas but for Ends.
AxisSet reduction_group(const Parameter& parameter);

struct Ownership {
  AxisSet sharers;   // the ranks that share the rows out
  AxisSet copies;    // ranks that own the same rows: other groups of sharers, and the other end's
  int parts = 1;     // ranks of the group of sharers
  int part = 0;      // this rank's number in it
  int owner = -1;    // whole matrices: the part that owns all rows; else -1
  Interval rows;     // of the parameter's, that this rank owns; may be empty
  int replica = 0;   // this rank's number along `copies`
  int replicas = 1;  // how many there are
};

Ownership ownership(const Parameter& parameter, const MeshShape& mesh, int rank, int zero_stage);

// Sets Parameter::parts, before the memory of values is taken.
void share_out(const Parameters& parameters, const MeshShape& mesh, int zero_stage);

}  // namespace tessera
