#include "checkpoint/save.h"

#include "checkpoint/saver.h"

namespace tessera {

Saved save(Comm& world, Storage& storage, const State& state, const SaveInfo& info) {
  Saver saver(world, storage, {});
  saver.start(state, info);
  return saver.finish();
}

}  // namespace tessera
