"""Population without training: trials of toy_trial.py that share a process."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from helpers.toy_trial import (
    DIVERGES,
    FAILS_ONCE,
    PAUSE,
    STEPS,
    WAITS,
    append,
    loss,
    open_folder,
    replace,
)


def main():
    stop_requests, stop_all = set(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_all.set())
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=listen, args=(stop_requests,), daemon=True).start()
    alive = {}
    for k, point in enumerate(spec["points"]):
        folder = open_folder(spec["workdirs"][k])
        folder.mkdir(parents=True, exist_ok=True)
        append(folder / "with", f"{len(spec['points'])}\n")
        alive[k] = folder, point
    done = [len(lines(folder)) for folder, _ in alive.values()]
    print("starts after", *done, flush=True)
    for step in range(min(done) + 1, STEPS + 1):
        time.sleep(PAUSE)
        for k, (folder, point) in list(alive.items()):
            seed = point.get("seed")
            if seed == FAILS_ONCE and not (folder / "failed").exists():
                (folder / "failed").write_text("")
                print("error: boom")
                return 1
            if k in stop_requests or stop_all.is_set():
                end(alive, k, "stopped", 75)
            elif seed == DIVERGES:
                end(alive, k, "exit_code", 3)
            else:
                row = {"step": step, "split": "validation", "loss": loss(point, step)}
                kept = lines(folder)[: step - 1]
                text = "".join(f"{line}\n" for line in [*kept, json.dumps(row)])
                replace(folder / "metrics.jsonl", text)
        waiting = [f for f, point in alive.values() if point.get("seed") == WAITS]
        while waiting and not (stop_requests or stop_all.is_set()):
            if (waiting[0] / "go").exists():
                break
            time.sleep(0.01)
    for k in list(alive):
        end(alive, k, "exit_code", 0)
    return 0


def end(alive, k, name, code):
    folder, _ = alive.pop(k)
    if code == 0:
        append(folder / "ends", "end\n")
    replace(folder / name, f"{code}\n")


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def listen(stop_requests):
    for line in sys.stdin:
        if not line.startswith("renewed"):
            stop_requests.add(int(line))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
