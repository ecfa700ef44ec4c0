// Which class stands behind each kind of mixer and feed-forward: the one place where a new kind is entered.
#pragma once

#include <memory>
#include <span>

#include "model/layers/sublayer.h"

namespace tessera {

// The halves of layer `layer` of shape.layers, with parameters "blocks.LAYER...".
std::unique_ptr<Sublayer> make_mixer(const ModelShape& shape, int layer);
std::unique_ptr<Sublayer> make_feed_forward(const ModelShape& shape, int layer);

// A plan for each kind of mixer that the layers have, with its memory: arena on the device where the layers run, lists
// on the host (the same arena, where they run on the CPU).
MicrobatchPlan make_microbatch_plan(const ModelShape& shape, std::span<const LayerKind> layers, Arena& arena,
                                    Arena& lists);

}  // namespace tessera
