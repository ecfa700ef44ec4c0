// How a command joins the program: each add_* puts one on the command line.
//
// What a command runs returns the exit code; errors are thrown (tensor/check.h), and main turns them into messages and
// exit codes.
#pragma once

namespace tessera {

class Command;  // launch/commands/options.h

// The exit code of a command that did its work and whose answer is no: checkpoint diff of checkpoints that differ,
// doctor where training is not possible. (1 is left to faults of the program: tensor/check.h.)
inline constexpr int kAnswerIsNo = 5;

void add_train(Command& program);
void add_eval(Command& program);
void add_generate(Command& program);
void add_data(Command& program);
void add_tokenizer(Command& program);
void add_checkpoint(Command& program);
void add_schedule(Command& program);
void add_scaling(Command& program);
void add_bench(Command& program);
void add_plan(Command& program);
void add_verify_layout(Command& program);
void add_doctor(Command& program);
void add_fields(Command& program);
void add_plot(Command& program);

}  // namespace tessera
