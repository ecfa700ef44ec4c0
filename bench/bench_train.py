"""`tessera bench train` from a script: one rank by itself, more under mpirun."""

import json
import os
import subprocess

MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # as launch/mpi_env.sh


def bench_train(tessera, config, ranks, threads, steps, microbatches, settings):
    """What --json prints; settings: {"model.hidden_size": 128}."""
    command = [tessera, "bench", "train", config, "--steps", str(steps), "--microbatches", str(microbatches), "--json",
               "--set", f"run.threads={threads}"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    if ranks > 1:
        command = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none"] + command
    done = subprocess.run(command, capture_output=True, text=True, env={**MPI, **os.environ})
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
