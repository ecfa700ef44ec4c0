// How a command joins the program: main lets each add_* put a subcommand on the parser; the one that the user chose
// leaves in `selected` what main is to run.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace tessera {

// Returns the exit code; errors are thrown (tensor/check.h) and turned into messages and exit codes by main.
using Selected = std::function<int()>;

void add_train(CLI::App& program, Selected& selected);
void add_eval(CLI::App& program, Selected& selected);
void add_generate(CLI::App& program, Selected& selected);
void add_data(CLI::App& program, Selected& selected);
void add_tokenizer(CLI::App& program, Selected& selected);
void add_checkpoint(CLI::App& program, Selected& selected);
void add_schedule(CLI::App& program, Selected& selected);
void add_scaling(CLI::App& program, Selected& selected);
void add_bench(CLI::App& program, Selected& selected);
void add_verify_layout(CLI::App& program, Selected& selected);
void add_doctor(CLI::App& program, Selected& selected);

}  // namespace tessera
