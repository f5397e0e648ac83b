"""Trial that writes a metrics.jsonl step by step, without training.

It reads a description as sweeps/trial_process.py does and has its exit codes. Some
seeds make it fail.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

STEPS, PAUSE = 10, 0.02
DIVERGES, FAILS, FAILS_ONCE, WAITS, WAITS_LATER = 100, 101, 102, 103, 104


def exit_with_parent():
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def loss(point, step):
    return point.get("optim.lr", 1.0) * 100 + point.get("seed", 0) + 1 / step


def main():
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    spec = json.loads(line)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    [workdir], [point] = spec["workdirs"], spec["points"]
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "processes").open("a") as file:
        file.write(f"{os.getpid()}\n")
    seed = point.get("seed")
    if seed == DIVERGES:
        return 3
    if seed == FAILS or (seed == FAILS_ONCE and not (folder / "failed").exists()):
        (folder / "failed").touch()
        print("error: boom")
        return 1
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    print(f"starts after {len(lines)}")
    with metrics.open("a") as file:
        for step in range(len(lines) + 1, STEPS + 1):
            if seed == WAITS or (seed == WAITS_LATER and step > STEPS // 2):
                stop.wait(60)
            if stop.is_set():
                return 75
            time.sleep(PAUSE)
            row = {"step": step, "split": "validation", "loss": loss(point, step)}
            file.write(json.dumps(row) + "\n")
            file.flush()
    (folder / "ends").open("a").write("end\n")
    (folder / "exit_code").write_text("0\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
