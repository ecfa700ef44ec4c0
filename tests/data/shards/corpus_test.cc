#include "data/shards/corpus.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "tensor/check.h"
#include "tests/data/shards/shards.h"

namespace tessera {
namespace {

using namespace testing_data;

std::string gzip(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::vector<Document> read_all(Corpus& corpus) {
  std::vector<Document> documents;
  for (Document document; corpus.next(document);) documents.push_back(document);
  return documents;
}

std::vector<std::string> texts(const std::vector<std::string>& paths, const CorpusOptions& options = {}) {
  Corpus corpus(paths, options);
  std::vector<std::string> out;
  for (const Document& document : read_all(corpus)) out.push_back(document.text);
  return out;
}

// Text that compresses little and is much longer than any buffer.
std::string long_text(size_t bytes) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < bytes) text += std::to_string(random()) + " ";
  return text;
}

TEST(Corpus, ReadsDirectoriesInTheOrderOfPaths) {
  const TempDirectory dir;
  write_file(dir / "c/b.txt", "three\r\nlines\n");
  write_file(dir / "c/a.pod", "two");
  write_file(dir / "c/z/deep.md", "four");
  write_file(dir / "c/0.jsonl",
             "{\"text\": \"zero\"}\n\n  \n{\"id\": {\"text\": [1, \"no\"]}, \"text\": \"one \\u00e9\"}");
  Corpus corpus({dir / "c"});
  const auto documents = read_all(corpus);
  ASSERT_EQ(documents.size(), 5u);
  const std::vector<std::string> expected = {"zero", "one \xC3\xA9", "two", "three\r\nlines\n", "four"};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(documents[i].text, expected[i]);
    EXPECT_EQ(documents[i].index, static_cast<int64_t>(i));
  }
  EXPECT_EQ(documents[0].line, 1);
  EXPECT_EQ(documents[1].line, 4) << "blank lines count as lines";
  EXPECT_EQ(documents[1].source, dir / "c/0.jsonl");
  EXPECT_EQ(documents[3].line, 0);
  EXPECT_EQ(corpus.report().documents, 5);
  EXPECT_EQ(corpus.report().bytes, 4 + 6 + 3 + 13 + 4);
}

TEST(Corpus, DecompressesAsItReads) {
  const TempDirectory dir;
  const std::string text = long_text(3 << 20);
  const std::string lines = "{\"text\": \"" + text + "\"}\n{\"text\": \"end\"}\n";
  write_file(dir / "a.txt", text);
  write_file(dir / "b.txt.gz", gzip(text));
  write_file(dir / "c.txt.zst", zstd(text));
  write_file(dir / "d.jsonl.gz", gzip(lines));
  write_file(dir / "e.jsonl.zst", zstd(lines));
  write_file(dir / "f.txt.gz", gzip(text) + gzip("member two"));
  write_file(dir / "g.txt.zst", zstd(text) + zstd("frame two"));
  EXPECT_TRUE(texts({dir.path()}) == (std::vector<std::string>{text, text, text, text, "end", text, "end",
                                                               text + "member two", text + "frame two"}));
}

TEST(Corpus, RefusesDamagedCompressedFiles) {
  const TempDirectory dir;
  const std::string text = long_text(1 << 20);
  const auto expect = [&](const std::string& name, const std::string& bytes, const std::string& words) {
    write_file(dir / name, bytes);
    const std::string message = message_of<DataError>([&] { texts({dir / name}); });
    EXPECT_NE(message.find(name), std::string::npos) << message;
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  const std::string g = gzip(text), z = zstd(text);
  expect("cut.gz", g.substr(0, g.size() - 5), "cut off");
  expect("cut.zst", z.substr(0, z.size() - 5), "cut off");
  expect("nothing.gz", "", "cut off");
  expect("nothing.zst", "", "cut off");
  expect("plain.gz", "not compressed at all", "damaged gzip");
  expect("plain.zst", "not compressed at all", "damaged zstd");
  std::string flipped = g;
  flipped[flipped.size() - 6] ^= 1;  // the CRC
  expect("flipped.gz", flipped, "damaged gzip");
}

TEST(Corpus, SkipsAndReportsWhatIsNoDocument) {
  const TempDirectory dir;
  write_file(dir / "a.txt", "a");
  write_file(dir / "empty.txt", "");
  write_file(dir / "blank.txt", " \n\t\n");
  write_file(dir / "x.jsonl", "{\"text\": \"\"}\n{\"text\": \"x\"}\n");
  write_file(dir / ".hidden", "h");
  write_file(dir / ".git/config", "h");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  std::filesystem::create_directory_symlink(dir / ".git", dir / "link");
  std::filesystem::create_symlink(dir / "nowhere", dir / "dangling");
  Corpus corpus({dir.path()});
  const auto documents = read_all(corpus);
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[1].text, "x");
  EXPECT_EQ(documents[1].index, 1);
  EXPECT_EQ(corpus.report().empty_documents, 3);
  const std::vector<std::string> skipped = {
      dir / ".git: hidden", dir / ".hidden: hidden", dir / "dangling: neither a file nor a directory",
      dir / "link: a symbolic link to a directory", dir / "pipe: neither a file nor a directory"};
  EXPECT_EQ(corpus.report().skipped, skipped);
  EXPECT_EQ(texts({dir / ".hidden"}), std::vector<std::string>{"h"}) << "named explicitly";
}

TEST(Corpus, RefusesWhatIsNotText) {
  const TempDirectory dir;
  write_file(dir / "a/bad.txt", "abc\xFFgh");
  write_file(dir / "a/good.txt", "good");
  write_file(dir / "a/nul.txt", std::string("ab\0c", 4));
  EXPECT_EQ(message_of<DataError>([&] { texts({dir / "a"}); }),
            dir /
                "a/bad.txt: not UTF-8 (byte 0xFF at offset 3); convert it, take it away, or have such files skipped "
                "(--skip-binary)");
  EXPECT_NE(message_of<DataError>([&] { texts({dir / "a/nul.txt"}); }).find("NUL byte at offset 2"), std::string::npos);

  CorpusOptions skip;
  skip.binary_files = BinaryFiles::Skip;
  Corpus corpus({dir / "a"}, skip);
  EXPECT_EQ(read_all(corpus).size(), 1u);
  EXPECT_EQ(corpus.report().skipped, (std::vector<std::string>{dir / "a/bad.txt: not UTF-8 (byte 0xFF at offset 3)",
                                                               dir / "a/nul.txt: a NUL byte at offset 2"}));
}

TEST(Corpus, DropsAByteOrderMark) {
  const TempDirectory dir;
  write_file(dir / "a.txt", "\xEF\xBB\xBFtext");
  write_file(dir / "b.jsonl", "\xEF\xBB\xBF{\"text\": \"line\"}\n");
  write_file(dir / "c.jsonl", "{\"text\": \"\xEF\xBB\xBFstring\"}\n");
  EXPECT_EQ(texts({dir.path()}), (std::vector<std::string>{"text", "line", "string"}));
  Corpus corpus({dir.path()});
  for (Document document; corpus.next(document);) continue;
  EXPECT_EQ(corpus.report().byte_order_marks, 3);
}

TEST(Corpus, SkipsAndCountsBrokenLinesWhenAsked) {
  const TempDirectory dir;
  write_file(dir / "x.jsonl",
             "{\"text\": \"one\"}\n{\"text\": \n{\"id\": 2}\n{\"text\": \"a\xFF\"}\n{\"text\": \"two\"}\n");
  CorpusOptions skip;
  skip.broken_lines = BrokenLines::Skip;
  Corpus corpus({dir.path()}, skip);
  std::vector<std::string> found;
  for (Document document; corpus.next(document);) found.push_back(document.text);
  EXPECT_EQ(found, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(corpus.report().broken_lines, 3);
  EXPECT_TRUE(corpus.report().first_broken_line.starts_with(dir / "x.jsonl:2: not JSON"))
      << corpus.report().first_broken_line;
}

TEST(Corpus, NamesFileAndLineOfBadJson) {
  const TempDirectory dir;
  const auto expect = [&](const std::string& line, const std::string& words) {
    write_file(dir / "x.jsonl", "{\"text\": \"good\"}\n" + line + "\n");
    const std::string message = message_of<DataError>([&] { texts({dir / "x.jsonl"}); });
    EXPECT_TRUE(message.starts_with(dir / "x.jsonl:2: ")) << message;
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  expect("{\"text\": ", "not JSON at byte");
  expect("{\"text\": \"a\"} x", "not JSON at byte");
  expect("[\"text\"]", "not a JSON object");
  expect("\"text\"", "not a JSON object");
  expect("{\"id\": 1, \"body\": \"a\"}", "no key \"text\" (the keys are: id, body)");
  expect("{\"a\": {\"text\": \"inner\"}}", "no key \"text\" (the keys are: a)");
  expect("{\"text\": 5}", "the value of \"text\" is a number, not a string");
  expect("{\"text\": [\"a\"]}", "the value of \"text\" is an array");
  expect("{\"text\": {\"text\": \"inner\"}}", "the value of \"text\" is an object");
  expect("{\"text\": null}", "the value of \"text\" is null");
  expect("{\"text\": \"a\", \"text\": \"b\"}", "the key stands twice");
  expect("{\"text\": \"a\xFF\"}", "not UTF-8 (byte 0xFF at byte 11 of the line)");
  expect("{\"text\": \"\\ud800\"}", "not JSON at byte");
  // A parser that calls itself for each bracket would run out of stack.
  expect("{\"a\": " + std::string(2'000'000, '['), "not JSON at byte");
}

TEST(Corpus, TakesTheKeyThatItIsTold) {
  const TempDirectory dir;
  write_file(dir / "x.jsonl", "{\"text\": 1, \"body\": \"b\"}\n");
  CorpusOptions options;
  options.text_key = "body";
  EXPECT_EQ(texts({dir / "x.jsonl"}, options), std::vector<std::string>{"b"});
}

TEST(Corpus, LimitsADocument) {
  const TempDirectory dir;
  CorpusOptions options;
  options.max_document_bytes = 1000;
  write_file(dir / "a.txt", std::string(1000, 'a'));
  EXPECT_EQ(texts({dir / "a.txt"}, options).size(), 1u);
  write_file(dir / "a.txt", std::string(1001, 'a'));
  EXPECT_NE(message_of<DataError>([&] { texts({dir / "a.txt"}, options); }).find("the limit of 1000 bytes"),
            std::string::npos);
  // A bomb: little on the disk, 64 MiB unpacked; it is refused long before that is in memory.
  write_file(dir / "b.jsonl.gz", gzip("{\"text\": \"b\"}\n" + std::string(64 << 20, 'b')));
  EXPECT_TRUE(message_of<DataError>([&] { texts({dir / "b.jsonl.gz"}, options); }).starts_with(dir / "b.jsonl.gz:2: "));
}

TEST(Corpus, RefusesNothingToRead) {
  const TempDirectory dir;
  EXPECT_EQ(message_of<DataError>([&] { Corpus({dir / "absent"}); }), dir / "absent: no such file or directory");
  EXPECT_NE(message_of<DataError>([&] { Corpus({dir.path()}); }).find("no file to read in"), std::string::npos);
  EXPECT_NE(message_of<DataError>([] { Corpus({}); }).find("an empty list of paths"), std::string::npos);
  write_file(dir / "empty.txt", "");
  EXPECT_NE(
      message_of<DataError>([&] { texts({dir.path()}); }).find("no document in the files given: 1 in all, 1 empty"),
      std::string::npos);
  write_file(dir / "a.txt", "a");
  EXPECT_NE(message_of<DataError>([&] { Corpus({dir / "a.txt", dir.path()}); }).find("named twice"), std::string::npos);
}

}  // namespace
}  // namespace tessera
