#include "model/layers/layer.h"

#include "parallel/comm/all_reduce_bytes.h"

namespace tessera {

Cost& Cost::operator+=(const Cost& other) {
  parameters += other.parameters;
  table_parameters += other.table_parameters;
  pair_flops += other.pair_flops;
  matrix_flops += other.matrix_flops;
  forward_sent += other.forward_sent;
  backward_input_sent += other.backward_input_sent;
  backward_weight_sent += other.backward_weight_sent;
  most_exchanged += other.most_exchanged;
  backward_sent += other.backward_sent;
  return *this;
}

Cost operator+(Cost a, const Cost& b) { return a += b; }

Cost PartCosts::sum() const {
  Cost sum = embedding + head;
  for (const Cost& block : blocks) sum += block;
  return sum;
}

int64_t tp_sent(const ModelSizes& shape, int64_t elements) {
  return elements * size_of(shape.compute) / shape.tp * (shape.tp - 1);
}

int64_t tp_all_reduce_sent(const ModelSizes& shape, int64_t elements, DType dtype) {
  return all_reduce_bytes(elements, dtype, shape.tp_rank, shape.tp);
}

ConstTensor own_tokens(const ModelSizes& shape, const ConstTensor& x) {
  return x.rows(shape.tp_rank * shape.local_slots(), (shape.tp_rank + 1) * shape.local_slots());
}

Parameter split_parameter(const ModelSizes& shape, std::string name, const Shape& global) {
  Parameter parameter;
  parameter.name = std::move(name);
  parameter.global_shape = global;
  parameter.rows = shard({0, global[0]}, shape.tp, shape.tp_rank);
  parameter.replicas = {Axis::Dp, Axis::Cp};
  parameter.standard_deviation = shape.initializer_range;
  return parameter;
}

Parameter whole_parameter(std::string name, const Shape& global) {
  Parameter parameter;
  parameter.name = std::move(name);
  parameter.global_shape = global;
  parameter.rows = {0, global[0]};
  parameter.replicas = {Axis::Dp, Axis::Cp, Axis::Tp};
  return parameter;
}

}  // namespace tessera
