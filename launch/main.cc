// tessera: reads the command line, runs one command, and turns every failure into a message and an exit code.
#include <hdf5.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "launch/commands/command.h"
#include "launch/commands/options.h"
#include "launch/process/failure.h"
#include "launch/process/host.h"
#include "launch/process/version.h"
#include "launch/process/waiting.h"
#include "tensor/check.h"

namespace tessera {
namespace {

void add_commands(Command program) {
  add_train(program);
  add_data(program);
  add_tokenizer(program);
  add_checkpoint(program);
  add_eval(program);
  add_generate(program);
  add_schedule(program);
  add_scaling(program);
  add_bench(program);
  add_plan(program);
  add_verify_layout(program);
  add_doctor(program);
  add_fields(program);
  add_plot(program);
}

int run(int argc, char** argv) {
  const LaunchedRank launched = launched_rank(process_environment());
  CommandLine line({.description = "Pretrains transformers on one machine or many.",
                    .version = "tessera " + program_version(),
                    .footer = "Exit codes: 0 done; 2 usage or config; 3 data or tokenizer; 4 no valid checkpoint; 5 "
                              "the answer is no (checkpoint "
                              "diff, doctor);\n17 numerical failure; "
                              "74 input, output or memory; 75 stopped with a checkpoint, start me again; 86 watchdog; "
                              "1 a fault of tessera "
                              "itself."},
                   launched.rank == 0 ? CommandLine::Help::Printed : CommandLine::Help::Silent);
  add_commands(line.program());
  const int code = line.read({argv + 1, argv + argc})();
  // What a command printed may lie in memory still. A disk that is full must not look like success.
  errno = 0;
  if (code == 0 && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0))
    throw IoError(std::string("cannot write to standard output: ") + std::strerror(errno != 0 ? errno : EIO));
  return code;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::bound_spinning(argv);
  ::prctl(PR_SET_NAME, "tessera");  // ps and top would call it "exe" else, as bound_spinning executes /proc/self/exe.
  // Files are closed where they are written, and what fails is said there. A file that could not be closed because the
  // disk is full would be closed once more when the program ends, where HDF5 does not survive the second failure.
  H5dont_atexit();
  try {
    return tessera::run(argc, argv);
  } catch (...) {
    return tessera::end_in_failure(tessera::failure_of(std::current_exception()));
  }
}
