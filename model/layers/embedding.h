// Token embedding, its rows (the vocabulary) split over tp, and learned positions where the family has them.
#pragma once

#include "model/layers/layer.h"
#include "parallel/batch.h"

namespace tessera {

class Embedding {
 public:
  explicit Embedding(const ModelShape& shape);
  // Its parameters' addresses are handed out.
  Embedding(const Embedding&) = delete;
  Embedding& operator=(const Embedding&) = delete;

  // Overwrites x [slots/tp, hidden]. Each tp rank looks up the tokens whose rows it holds; the sum over tp completes
  // them.
  void forward(LayerRun run, const Batch& batch, const Tensor& x) const;
  // dx [slots, hidden]: of all tokens. Accumulates into the tables' gradients. (There is no input gradient.)
  void backward_weight(LayerRun run, const Batch& batch, const ConstTensor& dx);

  int64_t workspace() const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);
  Parameter& table() { return table_; }

 private:
  // Positions of this tp rank's tokens.
  std::span<const int32_t> local_positions(const Batch& batch) const;

  ModelSizes shape_;
  Parameter table_;      // [vocab, hidden]
  Parameter positions_;  // [positions, hidden]
};

}  // namespace tessera
