#!/usr/bin/env python3
"""Two ranks of one thread each against one rank of two threads: GPT-2 124M, 4,096 tokens a step, by every axis.

    bench/two_ranks.py [--tessera build/cpu-release/tessera] [CASE ...]

Before and after each case the one rank runs, and the case is compared with the mean of the two, as a machine's speed
drifts. Sequences of 256 tokens in 16 microbatches; of 1,024 in 4 for cp. About half an hour for all on two free cores.
"""

import argparse

from bench_train import bench_train

CASES = {
    "tp": (256, {"parallel.tp": 2}),
    "pp 1f1b": (256, {"parallel.pp": 2}),
    "pp zb-h1": (256, {"parallel.pp": 2, "parallel.schedule": "zb-h1"}),
    "dp": (256, {"parallel.dp": 2}),
    "dp ZeRO 1": (256, {"parallel.dp": 2, "parallel.zero_stage": 1}),
    "dp ZeRO 2": (256, {"parallel.dp": 2, "parallel.zero_stage": 2}),
    "dp ZeRO 3": (256, {"parallel.dp": 2, "parallel.zero_stage": 3}),
    "cp gather": (1024, {"parallel.cp": 2}),
    "cp ring": (1024, {"parallel.cp": 2, "parallel.context_exchange": "ring"}),
    "cp ulysses": (1024, {"parallel.cp": 2, "parallel.context_exchange": "ulysses"}),
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tessera", default="build/cpu-release/tessera")
parser.add_argument("--steps", type=int, default=2)
parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
arguments = parser.parse_args()
for name in arguments.cases:
    if name not in CASES:
        parser.error(f"no case {name!r}; choose from {', '.join(CASES)}")


def seconds(ranks, sequence, settings):
    microbatches = 4096 // sequence // settings.get("parallel.dp", 1)  # on each data-parallel rank
    return bench_train(arguments.tessera, "configs/gpt2_124m.textproto", ranks, 2 // ranks, arguments.steps, microbatches,
                       {"data.sequence_length": sequence, "data.micro_batch_size": 1, **settings})["step_seconds"]


print(f"{'two ranks':<12} {'s a step':>9} {'one rank before':>16} {'after':>7} {'of its speed':>13}")
last = None  # the sequence length and time of the one rank that ran last
for name in arguments.cases or CASES:
    sequence, settings = CASES[name]
    before = last[1] if last and last[0] == sequence else seconds(1, sequence, {})
    two = seconds(2, sequence, settings)
    after = seconds(1, sequence, {})
    last = (sequence, after)
    print(f"{name:<12} {two:>9.3f} {before:>16.3f} {after:>7.3f} {(before + after) / 2 / two:>13.3f}", flush=True)
