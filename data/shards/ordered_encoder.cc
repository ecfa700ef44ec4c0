#include "data/shards/ordered_encoder.h"

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr int64_t kJobBytes = 256 << 10;  // small documents travel together
constexpr int64_t kMostBytes = 64 << 20;  // of text under way
constexpr size_t kJobsPerThread = 4;

}  // namespace

OrderedEncoder::OrderedEncoder(int threads, Encode encode, Sink sink)
    : encode_(std::move(encode)),
      sink_(std::move(sink)),
      filling_(std::make_shared<Job>()),
      most_jobs_(kJobsPerThread * static_cast<size_t>(threads)) {
  TESSERA_CHECK(threads >= 1, "a thread to encode on");
  for (int t = 0; t < threads; ++t) workers_.emplace_back([this] { work(); });
}

OrderedEncoder::~OrderedEncoder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  submitted_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void OrderedEncoder::work() {
  while (true) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      submitted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    try {
      for (const std::string& text : job->texts) {
        encode_(text, job->tokens);
        job->ends.push_back(job->tokens.size());
      }
    } catch (const DataError& error) {
      const std::string& where = job->places[job->ends.size()];
      job->error =
          where.empty() ? std::current_exception() : std::make_exception_ptr(DataError(where + ": " + error.what()));
    } catch (...) {
      job->error = std::current_exception();
    }
    job->texts.clear();
    {
      const std::lock_guard lock(mutex_);
      job->done = true;
    }
    finished_.notify_one();
  }
}

void OrderedEncoder::add(std::string text, std::string where) {
  filling_->bytes += static_cast<int64_t>(text.size());
  filling_->texts.push_back(std::move(text));
  filling_->places.push_back(std::move(where));
  if (filling_->bytes >= kJobBytes) submit();
}

void OrderedEncoder::submit() {
  bytes_ += filling_->bytes;
  in_order_.push_back(filling_);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(filling_));
  }
  submitted_.notify_one();
  filling_ = std::make_shared<Job>();
  while (in_order_.size() >= most_jobs_ || (bytes_ > kMostBytes && !in_order_.empty())) deliver_oldest();
}

void OrderedEncoder::deliver_oldest() {
  const std::shared_ptr<Job> job = std::move(in_order_.front());
  in_order_.pop_front();
  {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return job->done; });
  }
  bytes_ -= job->bytes;
  if (job->error) std::rethrow_exception(job->error);
  size_t begin = 0;
  for (const size_t end : job->ends) {
    sink_(std::span<const int32_t>(job->tokens).subspan(begin, end - begin));
    begin = end;
  }
}

void OrderedEncoder::finish() {
  if (!filling_->texts.empty()) submit();
  while (!in_order_.empty()) deliver_oldest();
}

}  // namespace tessera
