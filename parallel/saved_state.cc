#include "parallel/saved_state.h"

#include <iterator>

namespace tessera {

std::vector<StateSlice> saved_slices(Reducer& optimizer, std::span<Stage* const> stages) {
  std::vector<StateSlice> slices = optimizer.state();
  for (Stage* stage : stages) {
    std::vector<StateSlice> own = stage->state();
    slices.insert(slices.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
  }
  return slices;
}

}  // namespace tessera
