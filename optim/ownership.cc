#include "optim/ownership.h"

namespace tessera {

AxisSet reduction_group(const Parameter& parameter) { return parameter.replicas.without({Axis::TiedEnds}); }

Ownership ownership(const Parameter& parameter, const MeshShape& mesh, int rank, int zero_stage) {
  Ownership own;
  if (zero_stage == 0) {
    own.copies = parameter.replicas;
    own.rows = parameter.rows;
  } else {
    own.sharers = reduction_group(parameter);
    own.copies = parameter.replicas.without(own.sharers);
    if (own.sharers.has(Axis::Dp) && mesh.extent(Axis::ZeroReplica) > 1) {
      own.sharers = own.sharers.without({Axis::Dp}).with(Axis::ZeroShard);
      own.copies = own.copies.with(Axis::ZeroReplica);
    }
    own.parts = mesh.extent(own.sharers);
    own.part = mesh.position(own.sharers, rank);
    if (parameter.whole_matrix) {
      own.owner = static_cast<int>(parameter.ordinal % own.parts);
      own.rows = own.part == own.owner ? parameter.rows : Interval{parameter.rows.end, parameter.rows.end};
    } else {
      own.rows = shard(parameter.rows, own.parts, own.part);
    }
  }
  own.replica = mesh.position(own.copies, rank);
  own.replicas = mesh.extent(own.copies);
  return own;
}

void share_out(const Parameters& parameters, const MeshShape& mesh, int zero_stage) {
  for (Parameter* parameter : parameters) parameter->parts = ownership(*parameter, mesh, 0, zero_stage).parts;
}

}  // namespace tessera
