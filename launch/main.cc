// tessera: reads the command line, runs one command, and turns every failure into a message and an exit code.
#include <hdf5.h>

#include <CLI/CLI.hpp>

#include "launch/commands/command.h"
#include "launch/process/failure.h"
#include "launch/process/host.h"
#include "launch/process/version.h"
#include "launch/process/waiting.h"

namespace tessera {
namespace {

void add_commands(CLI::App& program, Selected& selected) {
  add_train(program, selected);
  add_data(program, selected);
  add_tokenizer(program, selected);
  add_checkpoint(program, selected);
  add_eval(program, selected);
  add_generate(program, selected);
  add_schedule(program, selected);
  add_scaling(program, selected);
  add_bench(program, selected);
  add_verify_layout(program, selected);
  add_doctor(program, selected);
}

int run(int argc, char** argv) {
  const LaunchedRank launched = launched_rank(process_environment());
  CLI::App program("Pretrains transformers on one machine or many.", "tessera");
  program.set_version_flag("--version", "tessera " + program_version());
  program.require_subcommand(1);
  program.footer(
      "Exit codes: 0 done; 2 usage or config; 3 data or tokenizer; 4 no valid checkpoint; 17 numerical failure;\n"
      "74 input or output; 75 stopped with a checkpoint, start me again; 86 watchdog; 1 a fault of tessera itself.");
  Selected selected;
  add_commands(program, selected);
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return launched.rank == 0 ? program.exit(help_or_version) : 0;
  } catch (const CLI::ParseError& error) {
    throw UsageError(std::string(error.what()) + "\nRun with --help to see what is possible.");
  }
  TESSERA_CHECK(selected, "the command has nothing to run");
  return selected();
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::bound_spinning(argv);
  // Files are closed where they are written, and what fails is said there. A file that could not be closed because the
  // disk is full would be closed once more when the program ends, where HDF5 does not survive the second failure.
  H5dont_atexit();
  try {
    return tessera::run(argc, argv);
  } catch (...) {
    return tessera::end_in_failure(tessera::failure_of(std::current_exception()));
  }
}
