#!/bin/sh
# A rung of the ladder, in slots of 10 minutes unless --slot says otherwise; exit code 75:
# the same command again goes on.
#   scripts/reproduce.sh RUNG --corpora=DIR [flags of benchmarks/reproduce.py]
#   PYTHON=... names another Python than that of make setup.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
rung=$1
shift
exec "$python" -m benchmarks.reproduce "$rung" --slot=540 "$@"
