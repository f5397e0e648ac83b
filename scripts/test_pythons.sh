#!/bin/sh
# Runs lint and tests with every Python found, each with the newest packages allowed,
# and with the first of them once more with the lowest.
#
#   scripts/test_pythons.sh [PYTHON ...]    # python3.11 to python3.14 unless given
#
# Environments are kept: .venv-3.12, .venv-lowest. Prints a line for each of them at the
# end; the exit code is 1 if one failed or no Python was found.

[ $# -gt 0 ] || set -- python3.11 python3.12 python3.13 python3.14

# check NAME PYTHON [PIP ARGUMENTS]: makes or updates .venv-NAME and tests in it.
check() {
  name=$1 bin=.venv-$1/bin
  "$2" -m venv ".venv-$1" || return
  shift 2
  "$bin/python" -m pip install --quiet --disable-pip-version-check \
    --upgrade --upgrade-strategy=eager -r requirements/dev.txt "$@" || return
  jax=$("$bin/python" -c "import jax; print(jax.__version__)") || return
  name="$name (jax $jax)"
  "$bin/python" -m ruff format --check . && "$bin/python" -m ruff check . || return
  "$bin/python" -m pytest -m "not slow" -n auto --maxprocesses=4 --dist loadfile
}

report() {
  if check "$@"; then result=passed; else result=FAILED failed=1; fi
  results="$results$name: $result
"
}

failed=0 first='' results=''
for python; do
  version=$("$python" -c "import sys; print('%d.%d' % sys.version_info[:2])" \
    2>/dev/null) || continue
  first=${first:-$python}
  report "$version" "$python"
done
[ -n "$first" ] || { echo "None of these Pythons was found: $*" >&2; exit 1; }

# Lower bounds as constraints: jax>=0.10.2,<0.13 becomes jax==0.10.2.
sed -nE 's/^([A-Za-z0-9_.-]+)(\[[a-z0-9]+\])?>=([0-9.]+).*/\1==\3/p' \
  requirements.txt requirements/dev.txt >.venv-lowest.txt
report lowest "$first" --constraint .venv-lowest.txt

printf '\n%s' "$results"
exit $failed
