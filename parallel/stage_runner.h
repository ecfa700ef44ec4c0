// One stage of this rank under the interpreter: which microbatch lies in which slot and which message buffer, and what
// is under way. Each method is one action of the schedule.
#pragma once

#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/stage.h"
#include "tensor/memory/arena.h"

namespace tessera {

class StageRunner {
 public:
  struct Wiring {
    Comm* pipeline = nullptr;       // the group along pp
    int from = -1, to = -1;         // ranks of the stages before and after; -1: none, or on this rank
    StageRunner* before = nullptr;  // the stage before, when it is on this rank
    int inputs = 0;                 // message buffers: the most that the schedule keeps alive
    int offloaded = 0;              // slots that the schedule keeps in host memory at once
  };
  StageRunner(Stage& stage, const Wiring& wiring);

  // Bytes that take_buffers() takes, where the activations lie and on the host. The stage needs no memory for that.
  static int64_t message_bytes(const Stage& stage, const Wiring& wiring);
  static int64_t offload_bytes(const Stage& stage, const Wiring& wiring);
  void take_buffers(Arena& messages, Arena& offloaded);

  Stage& stage() { return stage_; }
  // The blocks themselves, or all of the stage for BlockRange's default.
  BlockRange resolved(BlockRange blocks) const;

  // Forgets everything of a step that threw.
  void reset();

  void receive_forward(int microbatch);
  void forward(Context& context, const Batch& batch, int microbatch, BlockRange blocks, double loss_scale);
  void send_forward(int microbatch);
  void receive_backward(int microbatch);
  void recompute(Context& context, const Batch& batch, int microbatch, BlockRange blocks);
  void backward_input(Context& context, const Batch& batch, int microbatch, BlockRange blocks);
  void send_backward(int microbatch);
  void backward_weight(Context& context, const Batch& batch, int microbatch, BlockRange blocks);
  // backward_input and backward_weight, where nothing lies between them.
  void backward(Context& context, const Batch& batch, int microbatch, BlockRange blocks);
  void offload(Context& context, int microbatch);
  void fetch(Context& context, const Batch& batch, int microbatch);
  // Forward only: nothing is kept but the output, until the next stage on this rank has read it or hand_on() has sent
  // it; the last stage's is free at once.
  void evaluate(Context& context, const Batch& batch, int microbatch, BlockRange blocks, double loss_scale);
  void hand_on(int microbatch);

  // Waits until no send reads this stage's memory.
  void drain();

  // Seconds spent waiting, for a message to come and for one to be taken up, since the last call.
  struct Waited {
    double receives = 0, sends = 0;
  };
  Waited take_waited();

 private:
  // Memory that a message may still be using.
  struct Buffer {
    Tensor tensor;
    int microbatch = -1;   // that it belongs to; -1: free
    int64_t released = 0;  // when it became free
    Request received, sent;
  };

  Buffer& input_of(int microbatch);
  Buffer& slot_of(int microbatch);
  static Buffer* find(std::vector<Buffer>& buffers, int microbatch);
  Buffer& take(std::vector<Buffer>& buffers, int microbatch, const char* what);
  void release(Buffer& buffer);
  void wait(Request& request, double& seconds);
  void await_input(int microbatch);
  SlotRef ref_of(int microbatch);

  Stage& stage_;
  Wiring wiring_;
  std::vector<Buffer> inputs_;     // boundary tensors that come from another rank
  std::vector<Buffer> slots_;      // by slot: tensor is the stage's output in it
  std::vector<Buffer> offloaded_;  // host copies of slots
  int64_t releases_ = 0;
  bool read_here_ = false;  // the next stage is on this rank
  Waited waited_;
};

}  // namespace tessera
