// The end of the model: final norm, projection to the vocabulary (its rows split over tp), and loss.
//
// The loss runs over tiles of tokens: a tile's logits [tile, vocab/tp] are made, turned into loss and then, in place,
// into their gradient, and used at once for the gradients of weight and input. So the logits of a microbatch never
// exist as a whole, and, unlike a loss that runs over chunks of the vocabulary, none has to be computed twice. The
// price: in training, forward does the head's backward products too (the loss scale is known beforehand), and
// backward_input only finishes the norm.
#pragma once

#include "model/layers/linear.h"
#include "model/layers/norm.h"
#include "parallel/batch.h"

namespace tessera {

class Head {
 public:
  struct Saved {
    Norm::Saved norm;
    // [slots/tp, hidden] norm(x) times the output scale; after a training forward, the gradient that reaches it.
    Tensor h;
  };

  // Where the head's table comes from.
  enum class Tie : uint8_t {
    Free,        // the head's own
    SameStage,   // it is the embedding's
    OtherStage,  // the embedding's lies on this rank in another stage: its value, and a gradient of the head's own
    OtherRank,   // the embedding's lies on another pipeline rank: a second copy that gets the same updates
  };
  // embedding: the embedding's table, when it is on this rank; else null.
  Head(const ModelShape& shape, Tie tie, Parameter* embedding);
  // Its parameters' addresses are handed out.
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  enum class Mode : uint8_t { Train, Evaluate };

  // x [slots/tp, hidden] -> adds to loss [1] (F64) this context-parallel rank's sum of loss over its targets times
  // loss_scale, the same on every tp rank. With Mode::Train, leaves dL/dh in saved and accumulates into the table's
  // gradient. Waits for no device.
  void forward(LayerRun run, const Batch& batch, const ConstTensor& x, const Saved& saved, double loss_scale, Mode mode,
               const Tensor& loss);
  // Overwrites x with its gradient; accumulates the norm's.
  void backward_input(LayerRun run, const Tensor& x, const Saved& saved);

  // Overwrites logits [rows, vocab of this rank] (accumulation dtype) for tokens [first, first + rows) of x
  // [slots/tp, hidden]; one tp rank only (generation).
  void logits(LayerRun run, const ConstTensor& x, int64_t first, const Tensor& logits) const;

  Saved allocate(Arena& arena) const;
  void prepare(Context& context) const;
  int64_t workspace(Target target) const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);

  // Tokens whose logits exist at once: as many as make `kLogitsBytes`, in equal tiles.
  static int64_t tile_tokens(const ModelSizes& shape);
  static constexpr int64_t kLogitsBytes = int64_t{64} << 20;

 private:
  // h times the scale of the logits: (s h) W = s (h W), and so its gradient.
  void scale_output(Context& context, const Tensor& h) const;
  const Parameter& table() const { return tied_ ? *tied_ : table_; }

  ModelSizes shape_;
  Norm norm_;
  Parameter* tied_;  // the embedding's table, when it is of the same stage
  Parameter table_;  // [vocab, hidden]; unused then
  Interval rows_;    // of the vocabulary, on this rank
};

}  // namespace tessera
