"""A trial without training: numbers in a metrics.jsonl, saved step by step.

Takes an order as sweeps/trial_process.py does, and ends by the same exit codes. Some
seeds mean trouble.
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


def die_with_parent():
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def loss(point, step):
    return point.get("optim.lr", 1.0) * 100 + point.get("seed", 0) + 1 / step


def main():
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    order = json.loads(line)
    threading.Thread(target=die_with_parent, daemon=True).start()
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    folder, point = Path(order["workdir"]), order["point"]
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
    print(f"begins after {len(lines)}")
    with metrics.open("a") as file:
        for step in range(len(lines) + 1, STEPS + 1):
            if seed == WAITS or (seed == WAITS_LATER and step > STEPS // 2):
                asked.wait(60)
            if asked.is_set():
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
