#!/bin/bash
# Runs on every worker of a TPU VM, where scripts/tpu.py has copied this checkout.
#   bash scripts/tpu_worker.sh install
#   bash scripts/tpu_worker.sh run ATTEMPT COMMAND...
# `run` starts the command apart from the connection, prints its output and returns its
# exit code. The same ATTEMPT follows the command that already runs, which is what gcloud
# does after a lost connection; another ATTEMPT stops it first.
set -eu
cd "$(dirname "$0")/.."

install() {
  rm -f .venv/ready
  export PATH=$HOME/.local/bin:$PATH
  # The images' Python may be older than the project allows; uv brings one.
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
  uv venv --quiet --allow-existing --python=3.12 .venv
  uv pip install --quiet --python=.venv/bin/python -r requirements/tpu.txt
  touch .venv/ready
}

# Ends the process group of another attempt: SIGTERM, and SIGKILL two minutes later.
stop_group() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  for _ in {1..120}; do
    sleep 1
    kill -0 -- "-$1" 2>/dev/null || return 0
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}

run() {
  local attempt=$1 dir=.cache/tpu_run from=+1
  shift
  mkdir -p "$dir"
  if [ "$(cat "$dir/attempt" 2>/dev/null)" = "$attempt" ]; then
    from=10
  else
    [ ! -f "$dir/pid" ] || stop_group "$(cat "$dir/pid")"
    rm -f "$dir/code"
    : >"$dir/log" # now, since tail may be faster than the command
    # shellcheck disable=SC2016
    PATH=$PWD/.venv/bin:$PATH setsid bash -c \
      'trap : TERM; code=0; "$@" || code=$?; echo "$code" >"$0/code"' \
      "$dir" "$@" </dev/null >>"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    echo "$attempt" >"$dir/attempt"
  fi
  tail --lines="$from" --follow --sleep-interval=0.5 --pid="$(cat "$dir/pid")" "$dir/log"
  # Without a code, the machine was restarted meanwhile: 75, to be run again.
  exit "$(cat "$dir/code" 2>/dev/null || echo 75)"
}

"$@"
