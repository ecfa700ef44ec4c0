// The text form of a manifest and what must hold for one.
#pragma once

#include <string>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace tessera {

class Manifest;  // checkpoint/manifest.proto

inline constexpr int kFormat = 1;
inline constexpr int64_t kMaxManifestBytes = int64_t{1} << 30;

// Equal manifests are equal bytes. Ends with the line "# xxh3-128: DIGITS", the hash of all lines before it.
std::string write_manifest(const Manifest& manifest);

// Overwrites manifest. Throws CheckpointError naming `what` (the file) when the text is cut off, changed, of another
// format or not a manifest; afterwards every name is set and unique, every shape, dtype, size and hash can be read, and
// every file lies beside the manifest.
void parse_manifest(const std::string& text, const std::string& what, Manifest& manifest);

// Bytes of the files that it lists: what a checkpoint takes on the disk, but for the manifest itself.
int64_t stored_bytes(const Manifest& manifest);

// Shape and dtype as checked by parse_manifest; the tensor is number `index` of the manifest.
Shape tensor_shape(const Manifest& manifest, int index);
DType tensor_dtype(const Manifest& manifest, int index);

// The dtype of that name, or CheckpointError naming `what`.
DType checkpoint_dtype(const std::string& text, const std::string& what);

// The resolved config as it was given to save().
std::string config_text(const Manifest& manifest);
void set_config_text(Manifest& manifest, std::string_view text);

}  // namespace tessera
