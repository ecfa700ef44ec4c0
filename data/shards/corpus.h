// Documents of a corpus, one at a time, in a fixed order and in bounded memory.
//
// A path is a file or a directory. Directories are read recursively, their files sorted by path (byte order), so the
// order of documents is a function of the paths given and of the names below them. Inside a directory, hidden files
// and directories (name begins with '.'), symbolic links to directories, and what is neither a file nor a directory
// are skipped and reported; a path that is named explicitly is always read.
//
//   *.jsonl, *.ndjson       one JSON object a line, one document each: the string under `text_key`. Blank lines are
//                           nothing. Other keys are ignored.
//   any other file          one document: the whole file.
//   *.gz, *.zst             as the name without the suffix says, decompressed as it is read (concatenated members and
//                           frames too)
//
// Text is UTF-8 and is handed out as it stands: nothing is normalised, line ends included. A document of nothing but
// white space is empty: skipped and counted. A UTF-8 byte order mark at the beginning of a file or of a document is no
// text: dropped and counted.
//
// Memory: one document (one line of JSONL) plus a few hundred KiB. A document (or line) of more than
// `max_document_bytes` is a DataError that names it and the limit; it is never cut.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tessera {

struct Document {
  std::string text;    // valid UTF-8, not empty
  std::string source;  // path of the file
  int64_t line = 0;    // line of a JSONL file, from 1; 0: the file is the document
  int64_t index = 0;   // 0, 1, 2, ... over the corpus, empty documents not counted
};

// What to do with a text file that holds a NUL byte or is not UTF-8. (A JSONL file that does is always an error.)
enum class BinaryFiles { Refuse, Skip };

// What to do with a line of a JSONL file that is not an object with a string under the text key, or not UTF-8.
enum class BrokenLines { Refuse, Skip };

struct CorpusOptions {
  std::string text_key = "text";
  BinaryFiles binary_files = BinaryFiles::Refuse;
  BrokenLines broken_lines = BrokenLines::Refuse;
  int64_t max_document_bytes = int64_t{256} << 20;
};

// What has been read so far, and what was not.
struct CorpusReport {
  int64_t documents = 0;
  int64_t bytes = 0;                 // of their text
  int64_t empty_documents = 0;       // skipped
  int64_t byte_order_marks = 0;      // dropped
  int64_t broken_lines = 0;          // skipped
  std::string first_broken_line;     // "path:line: reason"
  std::vector<std::string> skipped;  // "path: reason" of every file and directory that was passed over
};

class Corpus {
 public:
  // Lists the files, reads none. Throws DataError: a path does not exist, a file is named twice, there is no file at
  // all; IoError: a directory cannot be read.
  explicit Corpus(const std::vector<std::string>& paths, CorpusOptions options = {});
  ~Corpus();

  // Overwrites `document` with the next one (its buffers are reused); false at the end. Throws DataError naming the
  // file and the line or byte offset: invalid UTF-8, NUL bytes, bad JSON, no string under the text key (a line of
  // these is skipped and counted under BrokenLines::Skip), a document over the limit, a damaged or cut-off compressed file, and at the end a corpus without any document; IoError: a
  // file cannot be read.
  bool next(Document& document);

  const std::vector<std::string>& files() const { return files_; }  // in reading order
  const CorpusReport& report() const { return report_; }

 private:
  class Reader;

  bool next_text(Document& document, const std::string& path);
  bool next_line(Document& document);
  void drop_byte_order_mark(std::string& text);

  CorpusOptions options_;
  std::vector<std::string> files_;
  size_t file_ = 0;                 // the next to open
  std::unique_ptr<Reader> reader_;  // of the JSONL file that is being read
  CorpusReport report_;
};

}  // namespace tessera
