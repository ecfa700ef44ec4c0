// index.h5: whole tensors as virtual datasets over the shard files, for people and h5py. Never a loader's path: HDF5
// reads a missing shard as fill values and reports success, so the fill value is NaN where there is one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/interval.h"
#include "tensor/tensor.h"

namespace tessera {

struct ViewTensor {
  struct Part {
    Interval rows;
    std::string file;  // name of the shard file
  };
  std::string name;
  Shape shape;
  DType dtype = DType::F32;
  std::vector<Part> parts;
};

// The bytes of index.h5. Equal tensors are equal bytes.
std::string make_view(const std::vector<ViewTensor>& tensors);

}  // namespace tessera
