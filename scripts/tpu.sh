#!/bin/sh
# TPU VMs and slices: create, install, run, copy, delete, list, sweep; see --help.
exec "${PYTHON:-python3}" "$(dirname "$0")/tpu.py" "$@"
