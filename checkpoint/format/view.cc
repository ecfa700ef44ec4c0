#include "checkpoint/format/view.h"

#include <array>
#include <limits>

#include "checkpoint/format/hdf5_image.h"
#include "checkpoint/format/shard_index.h"

namespace tessera {
namespace {

void select_rows(const Hdf5Handle& space, const Shape& shape, const Interval& rows) {
  std::array<hsize_t, Shape::kMaxRank> start{}, count{};
  for (int i = 0; i < shape.rank(); ++i) count[i] = static_cast<hsize_t>(shape[i]);
  start[0] = static_cast<hsize_t>(rows.begin);
  count[0] = static_cast<hsize_t>(rows.size());
  hdf5_check(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
             "select the rows " + rows.str());
}

// NaN, or the integer least likely to be meant.
void set_fill(const Hdf5Handle& properties, DType dtype) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const uint16_t bf16_nan = 0x7fc0;
  const int32_t smallest = std::numeric_limits<int32_t>::min();
  const uint32_t largest = std::numeric_limits<uint32_t>::max();
  switch (dtype) {
    case DType::F64:
    case DType::F32:
      return hdf5_check(H5Pset_fill_value(properties.get(), H5T_NATIVE_DOUBLE, &nan), "set a fill value");
    case DType::BF16:
      return hdf5_check(H5Pset_fill_value(properties.get(), hdf5_type(dtype).get(), &bf16_nan), "set a fill value");
    case DType::I32:
      return hdf5_check(H5Pset_fill_value(properties.get(), H5T_NATIVE_INT32, &smallest), "set a fill value");
    case DType::E4M3:
    case DType::E5M2:
      break;
    case DType::U16:
    case DType::U32:
      return hdf5_check(H5Pset_fill_value(properties.get(), hdf5_type(dtype).get(), &largest), "set a fill value");
  }
}

void add(Hdf5Image& image, const ViewTensor& tensor) {
  image.create_groups(tensor.name);
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "make dataset properties");
  hdf5_check(H5Pset_obj_track_times(properties.get(), false), "switch object times off");
  const auto space = hdf5_space(tensor.shape);
  // A virtual dataset needs a source; one without elements is an ordinary dataset.
  if (tensor.shape.size() > 0) {
    set_fill(properties, tensor.dtype);
    for (const auto& part : tensor.parts) {
      select_rows(space, tensor.shape, part.rows);
      const auto source = hdf5_space(tensor.shape.with_rows(part.rows.size()));
      hdf5_check(H5Pset_virtual(properties.get(), space.get(), part.file.c_str(),
                                dataset_name(tensor.name, part.rows).c_str(), source.get()),
                 "map " + tensor.name);
    }
    hdf5_check(H5Sselect_all(space.get()), "select all rows");
  }
  const auto type = hdf5_type(tensor.dtype);
  const Hdf5Handle dataset(H5Dcreate2(image.file(), tensor.name.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                      properties.get(), H5P_DEFAULT),
                           H5Dclose, "make the dataset " + tensor.name);
}

}  // namespace

std::string make_view(const std::vector<ViewTensor>& tensors) {
  Hdf5Image image;
  for (const ViewTensor& tensor : tensors) add(image, tensor);
  image.close();
  std::string bytes(static_cast<size_t>(image.size()), '\0');
  image.read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

}  // namespace tessera
