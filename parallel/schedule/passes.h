// Passes: from lists of compute actions to what a rank executes.
#pragma once

#include <vector>

#include "parallel/schedule/schedule.h"

namespace tessera {

struct StageFigures;  // parallel/schedule/verify.h

// Adds the messages between stages on different ranks to lists that have none. A send comes right after the compute
// that made it. A receive is posted one compute action (whole stages, however they are split into blocks) before the
// one that needs it, so that the message can hide behind that action; RECEIVE_BACKWARD never before SEND_FORWARD of the
// same microbatch, whose memory it takes. Both ends of a channel (sending stage, direction) go in the order of their
// compute actions, which verify() holds to microbatch order, so that the k-th send meets the k-th receive.
PipelineSchedule insert_messages(PipelineSchedule schedule);

// Adds REDUCE of each stage that has none yet, right after its last BACKWARD_WEIGHT, then NORM and STEP. What two
// pipeline ranks share is added up in NORM (Reducer::norm): a rank that waited for another one in REDUCE would send no
// gradients to those that are to join it.
PipelineSchedule append_step(PipelineSchedule schedule);

// Forward only, for evaluation, with messages. On each rank microbatches go in groups of `group`; within a group stage
// by stage. One microbatch a group needs one buffer a stage; as many as there are ranks keeps ranks with several stages
// busy. blocks: of every stage where weights are sharded, with GATHER and RELEASE (schedule_blocks.h); else empty.
PipelineSchedule forward_only_schedule(std::vector<int> rank_of_stage, int microbatches, int group = 1,
                                       const std::vector<int>& blocks = {});

// The largest group up to the number of ranks for which a forward-only schedule needs no more slots of any stage than
// training takes (verify's figures of its schedule): training's memory then serves evaluation.
int forward_only_group(const std::vector<int>& rank_of_stage, const std::vector<StageFigures>& training);

}  // namespace tessera
