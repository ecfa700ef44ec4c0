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
with open(sys.argv[1]) as lines, open(sys.argv[2] + "/train", "w") as train, \
     open(sys.argv[2] + "/validation", "w") as validation:
    for line in map(json.loads, lines):
        if line.get("loss") is not None:
            print(line["step"], line["loss"], file=train)
        elif line.get("validation_loss") is not None:
            print(line["step"], line["validation_loss"], file=validation)
PYTHON

curves=()
if [[ -s $points/train ]]; then
  curves+=("'$points/train' with lines linewidth 1 linecolor rgb '#9ecae1' title 'training loss'")
fi
if [[ -s $points/validation ]]; then
  curves+=("'$points/validation' with linespoints linewidth 2 pointtype 7 pointsize 0.7 linecolor rgb '#08519c' title 'validation loss'")
fi
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
set grid linecolor rgb '#dddddd'
set key top right
plot ${list#, }
GNUPLOT
mv "$picture.tmp" "$picture"
