#include "parallel/context/group.h"

namespace tessera {

ContextGroup::ContextGroup(Comm& comm, int64_t heads)
    : data_in(comm, 0, comm.size() * heads),
      data_out(comm, 0, comm.size() * heads),
      sums_in(comm, 1, heads),
      sums_out(comm, 1, heads),
      home_in(comm, 2, comm.size() * heads),
      home_out(comm, 2, comm.size() * heads),
      comm_(comm) {}

ContextGroup::Scope::~Scope() {
  for (Messages* messages :
       {&group_.data_in, &group_.data_out, &group_.sums_in, &group_.sums_out, &group_.home_in, &group_.home_out})
    messages->finish();
}

}  // namespace tessera
