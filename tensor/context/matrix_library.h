// What the matrix library keeps for a context: the primitives that it generated, by shape, and the scratchpad that they
// share. Defined where oneDNN is spoken to (tensor/ops/gemm/gemm_onednn.cc).
#pragma once

#include <cstdint>
#include <memory>

namespace tessera {

class MatrixLibrary {
 public:
  MatrixLibrary();
  ~MatrixLibrary();

  int64_t primitives() const;        // generated so far
  int64_t scratchpad_bytes() const;  // the library's own scratch memory, owned here

  struct Implementation;
  Implementation& implementation() { return *implementation_; }

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace tessera
