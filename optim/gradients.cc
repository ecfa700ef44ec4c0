#include "optim/gradients.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"

namespace tessera {

void Gradients::set_shares(Mesh& mesh, const std::vector<GradientShare>& shares) {
  for (const GradientShare& share : shares) {
    if (share.parameter->replicas.has(Axis::TiedEnds)) ends_.emplace_back(&mesh.group({Axis::TiedEnds}), share.sum);
    if (share.parameter->tied_to == nullptr) shares_.push_back(share);
  }
  for (const GradientShare& part : shares) {
    if (part.parameter->tied_to == nullptr) continue;
    const auto whole = std::find_if(shares_.begin(), shares_.end(), [&](const GradientShare& share) {
      return share.parameter == part.parameter->tied_to;
    });
    TESSERA_CHECK(whole != shares_.end() && whole->own.rows == part.own.rows, "a tied table's two parts on one rank");
    tied_.emplace_back(part.sum, whole->sum);
  }
}

void Gradients::join(Context& context) {
  finish(context);
  for (const auto& [part, whole] : tied_) add(context, whole, part, whole);
  for (const auto& [group, sum] : ends_) group->all_reduce_sum(sum);
}

}  // namespace tessera
