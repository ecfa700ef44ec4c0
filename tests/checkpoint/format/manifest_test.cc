#include "checkpoint/format/manifest.h"

#include <google/protobuf/text_format.h>

#include "checkpoint/format/hash.h"
#include "checkpoint/manifest.pb.h"
#include "tensor/context/random.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

Manifest example() {
  Manifest manifest;
  manifest.set_format(kFormat);
  manifest.set_step(7);
  auto& tensor = *manifest.add_tensor();
  tensor.set_name("w");
  tensor.add_dim(3);
  tensor.add_dim(4);
  tensor.set_dtype("F32");
  auto& shard = *manifest.add_shard();
  for (auto* file : {shard.mutable_data(), shard.mutable_index()}) {
    file->set_name(file == &shard.data() ? "shard-00000.h5" : "shard-00000.index");
    file->set_bytes(10);
    file->set_xxh3_128(std::string(32, '0'));
  }
  set_config_text(manifest, "run {\n  name: \"\xc3\xa4\"\n}\n");
  return manifest;
}

std::string sealed(const std::string& body) { return body + "# xxh3-128: " + hash128(body).hex() + "\n"; }

TEST(Manifest, ComesBackAsItWas) {
  const std::string text = write_manifest(example());
  EXPECT_EQ(text, write_manifest(example()));
  Manifest back;
  parse_manifest(text, "m", back);
  EXPECT_EQ(back.SerializeAsString(), example().SerializeAsString());
  EXPECT_EQ(config_text(back), "run {\n  name: \"\xc3\xa4\"\n}\n");
  EXPECT_EQ(tensor_shape(back, 0), (Shape{3, 4}));
  EXPECT_EQ(tensor_dtype(back, 0), DType::F32);
  // The whole file is text format, the hash a comment in it.
  Manifest plain;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &plain));
}

TEST(Manifest, AnyConfigTextComesBack) {
  for (const char* text : {"", "\n", "a", "a\n", "\n\na\r\n", "a\n\n"}) {
    Manifest manifest = example();
    set_config_text(manifest, text);
    EXPECT_EQ(config_text(manifest), text);
  }
}

TEST(Manifest, AnyChangeOrCutIsNoticed) {
  const std::string text = write_manifest(example());
  Manifest manifest;
  for (size_t i = 0; i < text.size(); ++i) {
    for (const int bit : {0, 5}) {
      std::string changed = text;
      changed[i] = static_cast<char>(changed[i] ^ 1 << bit);
      EXPECT_THROW(parse_manifest(changed, "m", manifest), CheckpointError) << i;
    }
    EXPECT_THROW(parse_manifest(text.substr(0, i), "m", manifest), CheckpointError) << i;
  }
  EXPECT_THROW(parse_manifest(text + "\n", "m", manifest), CheckpointError);
}

TEST(Manifest, RefusesWhatCannotBe) {
  const auto refusal = [](const std::function<void(Manifest&)>& change) {
    Manifest manifest = example(), out;
    change(manifest);
    return message_of<CheckpointError>([&] { parse_manifest(write_manifest(manifest), "m", out); });
  };
  const auto expect = [&](const std::string& part, const std::function<void(Manifest&)>& change) {
    EXPECT_NE(refusal(change).find(part), std::string::npos) << refusal(change);
  };
  expect("m: format 2", [](Manifest& m) { m.set_format(2); });
  expect("step -1", [](Manifest& m) { m.set_step(-1); });
  expect("names no shards", [](Manifest& m) { m.clear_shard(); });
  expect("tensor w is named twice", [](Manifest& m) { *m.add_tensor() = m.tensor(0); });
  expect("has no name", [](Manifest& m) { m.mutable_tensor(0)->clear_name(); });
  expect("0 dims", [](Manifest& m) { m.mutable_tensor(0)->clear_dim(); });
  expect("dim of -3", [](Manifest& m) { m.mutable_tensor(0)->set_dim(0, -3); });
  expect("too large", [](Manifest& m) {
    m.mutable_tensor(0)->set_dim(0, int64_t{1} << 40);
    m.mutable_tensor(0)->set_dim(1, int64_t{1} << 40);
  });
  expect("FP4", [](Manifest& m) { m.mutable_tensor(0)->set_dtype("FP4"); });
  for (const char* name : {"", "..", "../shard", "/etc/passwd"}) {
    expect("is not the name of a file beside it",
           [&](Manifest& m) { m.mutable_shard(0)->mutable_data()->set_name(name); });
  }
  expect("is named twice",
         [](Manifest& m) { m.mutable_shard(0)->mutable_index()->set_name(m.shard(0).data().name()); });
  expect("-1 bytes", [](Manifest& m) { m.mutable_shard(0)->mutable_data()->set_bytes(-1); });
  expect("not 32 digits", [](Manifest& m) { m.mutable_shard(0)->mutable_data()->set_xxh3_128("12"); });
}

TEST(Manifest, NamesTheLineOfAnUnknownField) {
  Manifest manifest;
  const std::string message =
      message_of<CheckpointError>([&] { parse_manifest(sealed("format: 1\nstepp: 3\n"), "m", manifest); });
  EXPECT_NE(message.find("m: line 2, column"), std::string::npos) << message;
  EXPECT_NE(message.find("stepp"), std::string::npos) << message;
}

// Random changes under a hash that fits: nothing but CheckpointError comes out.
void survive_nonsense(uint64_t rounds) {
  const std::string whole = write_manifest(example());
  const std::string body = whole.substr(0, whole.rfind("# xxh3"));
  const RandomStream random(1, "nonsense");
  int refused = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    std::string text = body;
    for (uint64_t i = 0; i <= random.below(round * 64, 4); ++i) {
      const size_t at = random.below(round * 64 + 4 * i + 1, text.size());
      switch (random.below(round * 64 + 4 * i + 2, 3)) {
        case 0:
          text[at] = static_cast<char>(random.bits(round * 64 + 4 * i + 3));
          break;
        case 1:
          text.erase(at, 1 + random.below(round * 64 + 4 * i + 3, 8));
          break;
        default:
          text.insert(at, text.substr(random.below(round * 64 + 4 * i + 3, text.size()), 16));
      }
    }
    Manifest manifest;
    try {
      parse_manifest(sealed(text), "m", manifest);
    } catch (const CheckpointError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(rounds / 2));
}

TEST(Manifest, SurvivesNonsense) { survive_nonsense(5000); }
TEST(Manifest, DISABLED_SurvivesMuchNonsense) { survive_nonsense(100000); }

}  // namespace
}  // namespace tessera
