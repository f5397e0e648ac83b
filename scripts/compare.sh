#!/bin/sh
# The three architectures on one corpus, made equal: sizes, training, scores, report.
#   sh scripts/compare.sh CONFIG [EQUAL] [PYTHON]
# CONFIG is configs/DATA.py, EQUAL is parameters, flops or seconds. The directory is
# runs/compare-DATA-EQUAL; the same command goes on where it stopped. TO is the budget
# (what the config's Transformer has), SEEDS how many runs of each, CONFIGFLAGS keys.
set -eu
config=$1
equal=${2:-parameters}
python=${3:-python}
place=runs/compare-$(basename "$config" .py)-$equal
mkdir -p "$place"
if [ ! -f "$place/space.py" ]; then # clocks would give other sizes the next time
    "$python" -m analysis.budget --config="$config" --equal="$equal" \
        ${TO:+--to="$TO"} --seeds="${SEEDS:-1}" --output="$place/space.py" \
        ${CONFIGFLAGS:-}
fi
"$python" sweep.py --config="$config" --space="$place/space.py" \
    --workdir="$place/sweep" ${CONFIGFLAGS:-}
for run in "$place"/sweep/trials/*; do
    "$python" eval.py --workdir="$run" --split=test || echo "left out: $run"
done
"$python" report.py --runs="$place/sweep" \
    --output="$place/report.html,$place/report.md,$place/report.json"
