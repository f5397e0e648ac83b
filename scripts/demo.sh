#!/bin/sh
# Three architectures on one small translation task: train, evaluate, compare.
#   sh scripts/demo.sh [PYTHON]
set -eu
python=${1:-python}
for model in rnn transformer transformer_xl; do
    echo "== $model"
    "$python" train.py --config="configs/cldr.py:$model" --workdir="runs/demo/$model"
    "$python" eval.py --workdir="runs/demo/$model" --split=test
done
"$python" report.py --runs=runs/demo/rnn,runs/demo/transformer,runs/demo/transformer_xl \
    --output=runs/demo/report.html
