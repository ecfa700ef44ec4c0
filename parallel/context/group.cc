#include "parallel/context/group.h"

namespace tessera {

ContextGroup::ContextGroup(Comm& comm, int64_t heads) : comm_(comm) {
  const int64_t most = comm.size() * heads;
  for (int tag = 0; tag < kTags; ++tag) {
    incoming_.emplace_back(comm, tag, most);
    outgoing_.emplace_back(comm, tag, most);
  }
}

ContextGroup::Scope::~Scope() {
  for (Messages& messages : group_.incoming_) messages.finish();
  for (Messages& messages : group_.outgoing_) messages.finish();
}

}  // namespace tessera
