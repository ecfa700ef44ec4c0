#!/usr/bin/env python3
"""Step time at 2k to 64k tokens, one document, on one rank and on two that share the context, each of one thread.

    bench/long_sequences.py [--tessera build/cpu-release/tessera] [--longest 65536]

A step takes a n + b n^2 for n tokens: a from the matrix products, b from attention. The table has the exponent between
neighbouring lengths, which goes from 1 to 2; below it a and b as fitted by least squares on relative errors, the length
at which both parts are equal, and the one exponent of a power law through the lengths from 16k on. A small Llama, so
that 65,536 tokens take minutes.
"""

import argparse
import math

from bench_train import bench_train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tessera", default="build/cpu-release/tessera")
parser.add_argument("--shortest", type=int, default=2048)
parser.add_argument("--longest", type=int, default=65536)
parser.add_argument("--steps", type=int, default=2)
arguments = parser.parse_args()

MODEL = {"model.hidden_size": 128, "model.num_hidden_layers": 2, "model.num_attention_heads": 4,
         "model.num_key_value_heads": 2, "model.vocab_size": 2048, "model.layer_types": "", "model.sliding_window": 0}


def seconds(ranks, tokens):
    return bench_train(arguments.tessera, "configs/long_context.textproto", ranks, 1, arguments.steps, 1,
                       {**MODEL, "parallel.cp": ranks, "data.sequence_length": tokens})["step_seconds"]


def power(lengths, times):
    """The slope of log time over log length, by least squares."""
    x, y = [math.log(n) for n in lengths], [math.log(t) for t in times]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    return sum((u - middle_x) * (v - middle_y) for u, v in zip(x, y)) / sum((u - middle_x)**2 for u in x)


def line_and_square(lengths, times):
    """a and b of a n + b n^2, the least squares of (a n + b n^2) / t - 1; and the largest of these."""
    u, v = [n / t for n, t in zip(lengths, times)], [n * n / t for n, t in zip(lengths, times)]
    uu, uv, vv = sum(x * x for x in u), sum(x * y for x, y in zip(u, v)), sum(y * y for y in v)
    a = (sum(u) * vv - sum(v) * uv) / (uu * vv - uv * uv)
    b = (sum(v) * uu - sum(u) * uv) / (uu * vv - uv * uv)
    return a, b, max(abs(a * x + b * y - 1) for x, y in zip(u, v))


lengths = [arguments.shortest << i for i in range(32) if arguments.shortest << i <= arguments.longest]
times = {1: [], 2: []}
print(f"{'tokens':>8} {'one rank, s':>12} {'exponent':>9} {'two ranks, s':>13} {'exponent':>9} {'speed-up':>9}")
for tokens in lengths:
    cells = ""
    for ranks, width in ((1, 12), (2, 13)):
        found = times[ranks]
        found.append(seconds(ranks, tokens))
        exponent = f"{math.log2(found[-1] / found[-2]):.2f}" if len(found) > 1 else "-"
        cells += f" {found[-1]:>{width}.3f} {exponent:>9}"
    print(f"{tokens:>8}{cells} {times[1][-1] / times[2][-1]:>9.2f}", flush=True)
for ranks, found in times.items():
    if len(lengths) < 3:
        break
    a, b, worst = line_and_square(lengths, found)
    long = [(n, t) for n, t in zip(lengths, found) if n >= 16384]
    tail = f"; exponent from 16k on {power(*zip(*long)):.2f}" if len(long) > 1 else ""
    print(f"{ranks} rank{'s' if ranks > 1 else ''}: {a * 1e6:.2f} us a token + {b * 1e9:.3f} ns a token squared "
          f"(within {worst:.1%}), equal parts at {a / b:.0f} tokens{tail}")
