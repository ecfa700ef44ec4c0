#include "checkpoint/format/hdf5_image.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <set>

namespace tessera {
namespace {

constexpr int64_t kPage = 4096;

// Pages that were written, by number; all else is zero.
struct SparseBytes {
  std::map<int64_t, std::array<std::byte, kPage>> pages;
  int64_t size = 0;

  void write(int64_t offset, std::span<const std::byte> in) {
    while (!in.empty()) {
      const int64_t inside = offset % kPage;
      const size_t count = std::min<size_t>(in.size(), kPage - inside);
      auto [page, fresh] = pages.try_emplace(offset / kPage);
      if (fresh) page->second.fill(std::byte{0});
      std::memcpy(page->second.data() + inside, in.data(), count);
      offset += count;
      in = in.subspan(count);
    }
  }

  void read(int64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const int64_t inside = offset % kPage;
      const size_t count = std::min<size_t>(out.size(), kPage - inside);
      const auto page = pages.find(offset / kPage);
      if (page == pages.end())
        std::memset(out.data(), 0, count);
      else
        std::memcpy(out.data(), page->second.data() + inside, count);
      offset += count;
      out = out.subspan(count);
    }
  }
};

// A file driver of HDF5 over SparseBytes. H5FD_t comes first, so that the library's pointer is also ours.
struct ImageFile {
  H5FD_t base{};
  SparseBytes* bytes = nullptr;
  haddr_t end_of_allocation = 0;
};

ImageFile* image_file(H5FD_t* file) { return reinterpret_cast<ImageFile*>(file); }
const ImageFile* image_file(const H5FD_t* file) { return reinterpret_cast<const ImageFile*>(file); }

struct DriverInfo {
  SparseBytes* bytes;
};

H5FD_t* driver_open(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  auto* file = new (std::nothrow) ImageFile;
  if (file != nullptr) file->bytes = info->bytes;
  return reinterpret_cast<H5FD_t*>(file);
}

herr_t driver_close(H5FD_t* file) {
  delete image_file(file);
  return 0;
}

int driver_compare(const H5FD_t* a, const H5FD_t* b) {
  return image_file(a)->bytes < image_file(b)->bytes ? -1 : image_file(a)->bytes > image_file(b)->bytes;
}

herr_t driver_query(const H5FD_t*, unsigned long* flags) {
  // Small structures share blocks; small datasets do not, so that each is aligned.
  *flags = H5FD_FEAT_AGGREGATE_METADATA;
  return 0;
}

haddr_t driver_get_eoa(const H5FD_t* file, H5FD_mem_t) { return image_file(file)->end_of_allocation; }
herr_t driver_set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  image_file(file)->end_of_allocation = address;
  return 0;
}
haddr_t driver_get_eof(const H5FD_t* file, H5FD_mem_t) { return static_cast<haddr_t>(image_file(file)->bytes->size); }

herr_t driver_read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* buffer) {
  image_file(file)->bytes->read(static_cast<int64_t>(address), {static_cast<std::byte*>(buffer), size});
  return 0;
}

herr_t driver_write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, const void* buffer) try {
  SparseBytes& bytes = *image_file(file)->bytes;
  bytes.write(static_cast<int64_t>(address), {static_cast<const std::byte*>(buffer), size});
  bytes.size = std::max(bytes.size, static_cast<int64_t>(address + size));
  return 0;
} catch (const std::exception&) {
  return -1;  // out of memory must not pass through C
}

herr_t driver_truncate(H5FD_t* file, hid_t, hbool_t) {
  image_file(file)->bytes->size = static_cast<int64_t>(image_file(file)->end_of_allocation);
  return 0;
}

H5FD_class_t driver_class() {
  H5FD_class_t driver{};
  driver.name = "tessera_image";
  driver.maxaddr = static_cast<haddr_t>(INT64_MAX);
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.fapl_size = sizeof(DriverInfo);
  driver.open = driver_open;
  driver.close = driver_close;
  driver.cmp = driver_compare;
  driver.query = driver_query;
  driver.get_eoa = driver_get_eoa;
  driver.set_eoa = driver_set_eoa;
  driver.get_eof = driver_get_eof;
  driver.read = driver_read;
  driver.write = driver_write;
  driver.truncate = driver_truncate;
  const H5FD_mem_t pools[] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(pools), std::end(pools), std::begin(driver.fl_map));
  return driver;
}

std::string library_message() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
        auto& message = *static_cast<std::string*>(out);
        if (message.empty() && error->desc != nullptr) message = error->desc;
        return 0;
      },
      &text);
  return text.empty() ? "no reason given" : text;
}

}  // namespace

Hdf5Handle::Hdf5Handle(hid_t id, Close close, const std::string& what) : id_(id), close_(close) {
  if (id < 0) throw IoError("HDF5: cannot " + what + ": " + library_message());
}

Hdf5Handle::~Hdf5Handle() {
  if (id_ >= 0) close_(id_);
}

void hdf5_check(herr_t status, const std::string& what) {
  if (status < 0) throw IoError("HDF5: cannot " + what + ": " + library_message());
}

Hdf5Handle hdf5_type(DType dtype) {
  const hid_t source = [&] {
    switch (dtype) {
      case DType::F64:
        return H5T_IEEE_F64LE;
      case DType::I32:
        return H5T_STD_I32LE;
      case DType::U16:
        return H5T_STD_U16LE;
      case DType::U32:
        return H5T_STD_U32LE;
      case DType::E4M3:
      case DType::E5M2:
        throw InternalError(std::string("no checkpoint holds ") + name(dtype));
      case DType::F32:
      case DType::BF16:
        break;
    }
    return H5T_IEEE_F32LE;
  }();
  Hdf5Handle type(H5Tcopy(source), H5Tclose, "copy a type");
  if (dtype == DType::BF16) {
    hdf5_check(H5Tset_fields(type.get(), 15, 7, 8, 0, 7), "describe BF16");
    hdf5_check(H5Tset_size(type.get(), 2), "describe BF16");
    hdf5_check(H5Tset_ebias(type.get(), 127), "describe BF16");
  }
  return type;
}

Hdf5Handle hdf5_space(const Shape& shape) {
  std::array<hsize_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < shape.rank(); ++i) dims[i] = static_cast<hsize_t>(shape[i]);
  return {H5Screate_simple(shape.rank(), dims.data(), nullptr), H5Sclose, "describe the shape " + shape.str()};
}

Hdf5Handle hdf5_dataset_properties() {
  Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "make dataset properties");
  hdf5_check(H5Pset_obj_track_times(properties.get(), false), "switch object times off");
  hdf5_check(H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY), "allocate early");
  hdf5_check(H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER), "switch filling off");
  return properties;
}

struct Hdf5Image::Impl {
  SparseBytes bytes;
  hid_t driver = H5I_INVALID_HID;
  std::optional<Hdf5Handle> file;
  std::set<std::string> groups;

  ~Impl() {
    file.reset();
    if (driver >= 0) H5FDunregister(driver);
  }
};

Hdf5Image::Hdf5Image() : impl_(std::make_unique<Impl>()) {
  // The library prints its error stack unless told not to; what matters of it goes into our messages.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const H5FD_class_t driver = driver_class();  // copied by the library
  impl_->driver = H5FDregister(&driver);
  if (impl_->driver < 0) throw IoError("HDF5: cannot register a file driver: " + library_message());

  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "make file properties");
  const DriverInfo info{&impl_->bytes};
  hdf5_check(H5Pset_driver(access.get(), impl_->driver, &info), "choose the file driver");
  hdf5_check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110), "choose the 1.10 format");
  hdf5_check(H5Pset_alignment(access.get(), 1, kAlignment), "align datasets");
  const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "make file properties");
  hdf5_check(H5Pset_obj_track_times(creation.get(), false), "switch object times off");
  impl_->file.emplace(H5Fcreate("image", H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose, "make a file");
}

Hdf5Image::~Hdf5Image() = default;

hid_t Hdf5Image::file() const {
  TESSERA_CHECK(impl_->file.has_value(), "a closed image takes nothing more");
  return impl_->file->get();
}

void Hdf5Image::create_groups(const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string group = path.substr(0, slash);
    if (!impl_->groups.insert(group).second) continue;
    const Hdf5Handle properties(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "make group properties");
    hdf5_check(H5Pset_obj_track_times(properties.get(), false), "switch object times off");
    const Hdf5Handle made(H5Gcreate2(file(), group.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose,
                          "make the group " + group);
  }
}

void Hdf5Image::close() {
  hdf5_check(H5Fflush(file(), H5F_SCOPE_GLOBAL), "flush a file");
  impl_->file.reset();
}

int64_t Hdf5Image::size() const {
  TESSERA_CHECK(!impl_->file.has_value(), "the size is known after close()");
  return impl_->bytes.size;
}

void Hdf5Image::read(int64_t offset, std::span<std::byte> out) const {
  TESSERA_CHECK(!impl_->file.has_value(), "bytes are complete after close()");
  impl_->bytes.read(offset, out);
}

}  // namespace tessera
