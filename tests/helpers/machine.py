"""A program of this project as on another machine, whose clock is minutes ahead.

    python tests/helpers/machine.py NAME sweep.py --config=...

It has one core. Leases end after seconds, so that others take its trials over soon.
"""

import os
import runpy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

import sweeps.storage  # noqa: E402
import sweeps.study  # noqa: E402
import sweeps.trial_process  # noqa: E402
import sweeps.worker  # noqa: E402
from sweeps import trial_state  # noqa: E402


def become_machine(name, *, expiry, lease, renewal):
    """Gives this process the identity and the clock of another machine."""
    clock = time.time
    time.time = lambda: clock() + 300 * int(name)
    trial_state.machine_id = lambda: f"machine {name}"
    trial_state.EXPIRY_SECONDS = expiry
    sweeps.study.LEASE_SECONDS = sweeps.trial_process.LEASE_SECONDS = lease
    sweeps.worker.RENEWAL_SECONDS = sweeps.worker.REFRESH_SECONDS = renewal
    sweeps.storage.BUCKET_POLL_SECONDS = renewal


if __name__ == "__main__":
    name, *sys.argv = sys.argv[1:]
    os.sched_setaffinity(0, {int(name) % os.cpu_count()})
    os.environ.update(OMP_NUM_THREADS="1", PJRT_NPROC="1")
    become_machine(name, expiry=30.0, lease=20.0, renewal=2.0)
    runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
