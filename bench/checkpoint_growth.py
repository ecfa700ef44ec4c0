#!/usr/bin/env python3
"""How the time of saving and loading grows with the state's size, and with the number of ranks at one size a rank.

    bench/checkpoint_growth.py DIR [--tessera build/cpu-release/tessera] [--repeats 3]

Runs `tessera bench checkpoint` and prints a table: seconds for each GiB of all ranks' state, and that as a ratio to plain
files of the same bytes in the same run. A straight line through the sizes has equal entries in each column.
"""

import argparse
import json
import subprocess

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("directory", metavar="DIR", help="on the disk in question; what is written there is removed")
parser.add_argument("--tessera", default="build/cpu-release/tessera")
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--mib", type=int, nargs="+", default=[100, 400, 1600, 4096], help="sizes for one rank")
parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
parser.add_argument("--mib-per-rank", type=int, default=100)
arguments = parser.parse_args()

print(f"{'state':>9} {'ranks':>5} | {'write':>6} {'save':>6} {'ratio':>5} | {'read':>6} {'load':>6} {'ratio':>5} "
      f"{'other':>6} {'ratio':>5} | {'stall':>5} {'at once':>7} | {'staging':>9}")
for mib, ranks in [(mib, 1) for mib in arguments.mib] + [(arguments.mib_per_rank * n, n) for n in arguments.ranks]:
    command = [arguments.tessera, "bench", "checkpoint", arguments.directory, "--mib", str(mib), "--repeats",
               str(arguments.repeats), "--local-ranks", str(ranks), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    gib = found["bytes"] / 2**30
    print(f"{mib:>5} MiB {ranks:>5} | {found['plain_write_seconds'] / gib:>6.2f} {found['save_seconds'] / gib:>6.2f} "
          f"{found['write_ratio']:>5.2f} | {found['plain_read_seconds'] / gib:>6.2f} {found['load_seconds'] / gib:>6.2f} "
          f"{found['load_ratio']:>5.2f} {found['load_other_seconds'] / gib:>6.2f} {found['load_other_ratio']:>5.2f} | "
          f"{found['stall_ratio']:>5.2f} {found['copy_stall_ratio']:>7.2f} | "
          f"{found['staging_bytes'] / 2**20:>5.0f} MiB", flush=True)
