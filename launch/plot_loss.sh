#!/usr/bin/env bash
# Draws training and validation loss of a run's metrics.jsonl.
# Usage: plot_loss.sh METRICS.JSONL PICTURE.PNG [TITLE]
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: plot_loss.sh METRICS.JSONL PICTURE.PNG [TITLE]" >&2
  exit 2
fi
metrics=$1 picture=$2 title=${3:-}

points=$(mktemp -d)
trap 'rm -rf "$points"' EXIT
python3 - "$metrics" "$points" <<'PYTHON'
import json, sys
files = {}
with open(sys.argv[1]) as lines:
    for line in map(json.loads, lines):
        loss, curve = line.get("loss"), "training"
        if "validation_loss" in line:
            loss, curve = line["validation_loss"], "validation " + line.get("dataset", "").replace("/", "_")
        if loss is None:
            continue
        if curve not in files:
            files[curve] = open(f"{sys.argv[2]}/{curve}", "w")
        files[curve].write(f"{line['step']} {loss}\n")
PYTHON

curves=()
if [[ -f $points/training ]]; then
  curves+=("'$points/training' with lines linewidth 1 linecolor rgb '#9ecae1' title 'training'")
fi
for file in "$points"/validation*; do
  [[ -f $file ]] || continue
  curves+=("'$file' with linespoints linewidth 2 pointtype 7 pointsize 0.7 title '${file##*/}' noenhanced")
done
if [[ ${#curves[@]} -eq 0 ]]; then
  echo "plot_loss.sh: $metrics has no losses" >&2
  exit 1
fi
list=$(printf ', %s' "${curves[@]}")

# Drawn beside the picture and renamed, so that a viewer never sees half of it.
gnuplot <<GNUPLOT
set terminal pngcairo size 960,540 font 'sans,12' background '#ffffff'
set output '$picture.tmp'
set title '$title' noenhanced
set xlabel 'step'
set ylabel 'loss (nats per token)'
set linetype 2 linecolor rgb '#08519c'
set grid linetype 1 linewidth 1 linecolor rgb '#dddddd'
set key top right
plot ${list#, }
GNUPLOT
mv "$picture.tmp" "$picture"
