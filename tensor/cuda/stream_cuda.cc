#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "tensor/check.h"
#include "tensor/cuda/stream.h"

namespace tessera::cuda {

namespace {

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // or whoever asks next takes it for theirs
    const std::string message =
        std::string(what) + ": " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")";
    if (error == cudaErrorMemoryAllocation) throw DeviceMemoryError(message);
    throw InternalError(message);
  }
}

cudaStream_t of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

void refuse_recording(const Stream& stream, const char* what) {
  if (stream.recording()) throw InternalError(std::string(what) + " cannot be recorded in a graph");
}

}  // namespace

Stream::Stream(Priority priority) {
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for the priorities of streams");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == Priority::High ? greatest : least),
        "making a stream");
  handle_ = stream;
}

Stream::~Stream() {
  if (handle_ == nullptr) return;
  if (const cudaError_t error = cudaStreamDestroy(of(handle_));
      error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "ending a stream: %s\n", cudaGetErrorString(error));
  }
}

bool Stream::recording() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(of(handle_), &status), "asking whether a stream is recorded");
  return status != cudaStreamCaptureStatusNone;
}

void Stream::synchronize() const {
  refuse_recording(*this, "a wait of the host");
  check(cudaStreamSynchronize(of(handle_)), "waiting for the GPU");
}

void Stream::wait(const Event& event) const {
  refuse_recording(*this, "a wait for another stream");
  check(cudaStreamWaitEvent(of(handle_), event_of(event.handle()), 0), "queueing a wait for an event");
}

void Stream::copy_to_device(void* to, const void* from, int64_t bytes) const {
  if (bytes == 0) return;
  refuse_recording(*this, "a copy from the host");
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, of(handle_)),
        "copying to the GPU");
}

void Stream::copy_to_host(void* to, const void* from, int64_t bytes) const {
  if (bytes == 0) return;
  refuse_recording(*this, "a copy to the host");
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, of(handle_)),
        "copying from the GPU");
}

void Stream::copy_on_device(void* to, const void* from, int64_t bytes) const {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, of(handle_)),
        "copying on the GPU");
}

void Stream::zero(void* data, int64_t bytes) const {
  if (bytes == 0) return;
  check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), of(handle_)), "zeroing GPU memory");
}

Event::Event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  handle_ = event;
}

Event::~Event() {
  if (handle_ == nullptr) return;
  if (const cudaError_t error = cudaEventDestroy(event_of(handle_));
      error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "ending an event: %s\n", cudaGetErrorString(error));
  }
}

void Event::record(const Stream& stream) {
  check(cudaEventRecord(event_of(handle_), of(stream.handle())), "recording an event");
}

bool Event::done() const {
  const cudaError_t error = cudaEventQuery(event_of(handle_));
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  check(error, "asking for an event");
  return true;
}

void Event::synchronize() const { check(cudaEventSynchronize(event_of(handle_)), "waiting for an event"); }

}  // namespace tessera::cuda
