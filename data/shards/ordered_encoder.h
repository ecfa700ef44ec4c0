// Encodes documents on several threads and gives the tokens back in the documents' order, in bounded memory.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace tessera {

class OrderedEncoder {
 public:
  using Encode = std::function<void(std::string_view text, std::vector<int32_t>& tokens)>;  // appends; any thread
  using Sink = std::function<void(std::span<const int32_t> tokens)>;  // the caller's thread, in order

  OrderedEncoder(int threads, Encode encode, Sink sink);
  ~OrderedEncoder();

  // Takes a document. Waits, and delivers finished ones to the sink, while too much is under way: about 64 MiB of text
  // and a few batches for each thread. Rethrows what encode or sink threw.
  // `where` stands before what encode says of this document.
  void add(std::string text, std::string where = "");
  void finish();  // delivers all that is left

 private:
  struct Job {
    std::vector<std::string> texts, places;
    std::vector<int32_t> tokens;
    std::vector<size_t> ends;  // [texts]: one past each document's last token
    int64_t bytes = 0;
    bool done = false;
    std::exception_ptr error;
  };

  void work();
  void submit();
  void deliver_oldest();

  Encode encode_;
  Sink sink_;
  std::shared_ptr<Job> filling_;
  std::deque<std::shared_ptr<Job>> in_order_;  // submitted, not delivered; the caller's thread only
  int64_t bytes_ = 0;                          // of their texts
  size_t most_jobs_;

  std::mutex mutex_;
  std::condition_variable submitted_, finished_;
  std::deque<std::shared_ptr<Job>> queue_;  // not taken by a worker
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace tessera
