// A model's parameters without a model: what the optimizer's tests train.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optim/ownership.h"
#include "tensor/ops/elementwise.h"

namespace tessera {

struct SmallModel {
  // Matrices and biases split over tp, a norm that every rank holds. Five rows over tp = 2 are cut unevenly.
  SmallModel(const Mesh& mesh, DType compute, int zero_stage = 0, bool whole_matrices = false) {
    add(mesh, {.name = "blocks.0.mlp.up",
               .global_shape = {5, 3},
               .initialisation = Initialisation::Normal,
               .split = true,
               .decay = true});
    add(mesh, {.name = "blocks.0.norm",
               .global_shape = {7},
               .initialisation = Initialisation::One,
               .split = false,
               .decay = false});
    add(mesh, {.name = "blocks.0.mlp.bias",
               .global_shape = {6},
               .initialisation = Initialisation::Zero,
               .split = true,
               .decay = false});
    add(mesh, {.name = "blocks.0.mlp.down",
               .global_shape = {8, 4},
               .initialisation = Initialisation::Normal,
               .split = true,
               .decay = true});
    add(mesh, {.name = "attention",
               .global_shape = {2, 2},
               .initialisation = Initialisation::Normal,
               .split = false,
               .decay = true});
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i]->ordinal = static_cast<int64_t>(i);
      parameters[i]->ordinals = static_cast<int64_t>(parameters.size());
    }
    parameters[1]->weight_adds_alone = false;
    parameters[0]->whole_matrix = whole_matrices;
    parameters[3]->whole_matrix = whole_matrices;
    share_out(parameters, mesh.shape(), zero_stage);
    if (zero_stage == 3) return;
    int64_t bytes = 0;
    for (const Parameter* parameter : parameters) bytes += Arena::bytes(parameter->padded_shape(), compute);
    arena = Arena("small model", Device::Cpu, bytes);
    for (Parameter* parameter : parameters)
      parameter->value = arena.take(parameter->padded_shape(), compute).rows(0, parameter->rows.size());
  }

  struct Spec {
    std::string name;
    Shape global_shape;
    Initialisation initialisation;
    bool split, decay;
  };

  void add(const Mesh& mesh, const Spec& spec) {
    const Interval all{0, spec.global_shape[0]};
    owners.push_back(std::make_unique<Parameter>(
        Parameter{.name = spec.name,
                  .global_shape = spec.global_shape,
                  .rows = spec.split ? shard(all, mesh.extent(Axis::Tp), mesh.coordinate(Axis::Tp)) : all,
                  .replicas = spec.split ? AxisSet{Axis::Dp, Axis::Cp} : AxisSet{Axis::Dp, Axis::Cp, Axis::Tp},
                  .decay = spec.decay,
                  .initialisation = spec.initialisation,
                  .standard_deviation = 0.5,
                  .value = {},
                  .gradient = {}}));
    parameters.push_back(owners.back().get());
  }

  // Accumulates this rank's partial sum of the gradient of a step: small integers, exact in any order, whose sum over
  // any number of replicas is global_gradient.
  void accumulate_gradients(const Mesh& mesh, int64_t step) {
    for (Parameter* parameter : parameters) {
      int replica = 0, replicas = 1;  // numbered over the axes of its group
      for (Axis axis : {Axis::Dp, Axis::Cp, Axis::Tp}) {
        if (!parameter->replicas.has(axis)) continue;
        replica = replica * mesh.extent(axis) + mesh.coordinate(axis);
        replicas *= mesh.extent(axis);
      }
      dispatch_float(parameter->gradient.dtype(), [&]<class T>(T) {
        if constexpr (!std::is_same_v<T, bf16>) {
          const int64_t first = parameter->rows.begin * parameter->global_shape.row_size();
          T* gradient = parameter->gradient.template as<T>();
          for (int64_t i = 0; i < parameter->gradient.size(); ++i) {
            // Replica r adds r, the last one takes that off again.
            const int64_t others = static_cast<int64_t>(replicas - 1) * (replicas - 2) / 2;
            gradient[i] += replica < replicas - 1
                               ? static_cast<T>(replica)
                               : static_cast<T>(global_gradient(parameter->name, first + i, step) - others);
          }
        }
      });
    }
  }

  static int64_t global_gradient(const std::string& name, int64_t index, int64_t step) {
    return static_cast<int64_t>((name.size() * 31 + static_cast<size_t>(index) * 17 + static_cast<size_t>(step) * 7) %
                                23) -
           11;
  }

  std::vector<std::unique_ptr<Parameter>> owners;
  Parameters parameters;
  Arena arena;
};

}  // namespace tessera
