// What lies in a run's checkpoints/ folder, by name:
//   step-00001000/                      a published checkpoint
//   step-00001000.tmp-ID/               one that is being written, or a leftover of a save that was cut off
//   LATEST                              name of the newest published one: advice for people, never read here
// and in a checkpoint:
//   manifest.textproto, index.h5, shard-00003.h5 and shard-00003.index for each rank
//   VERIFIED                            once all of it was read again and found right (checkpoint/reread.h)
//   DAMAGED                             once reading it found bytes that are not what was saved, and which
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

inline constexpr const char* kManifestName = "manifest.textproto";
inline constexpr const char* kViewName = "index.h5";
inline constexpr const char* kLatestName = "LATEST";
inline constexpr const char* kVerifiedName = "VERIFIED";
inline constexpr const char* kDamagedName = "DAMAGED";

std::string step_name(int64_t step);                              // "step-00001000"
std::string temporary_name(int64_t step, const std::string& id);  // "step-00001000.tmp-ID"
std::string shard_name(int rank);                                 // "shard-00003.h5"
std::string shard_index_name(int rank);                           // "shard-00003.index"

// The step of a published checkpoint's name, or nothing for any other name.
std::optional<int64_t> published_step(std::string_view name);
// The step of a temporary directory's name, or nothing for any other name.
std::optional<int64_t> temporary_step(std::string_view name);

// directory + "/" + name
std::string join(const std::string& directory, std::string_view name);
// The last part of a path.
std::string base_name(const std::string& path);

}  // namespace tessera
