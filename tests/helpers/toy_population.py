"""A population without training: as toy_trial.py, for many trials in one process."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from helpers.toy_trial import DIVERGES, FAILS_ONCE, PAUSE, STEPS, WAITS, loss


def main():
    asked, everyone = set(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: everyone.set())
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=listen, args=(asked,), daemon=True).start()
    alive = {}
    for k, trial in enumerate(order["trials"]):
        folder = Path(trial["workdir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "with").open("a").write(f"{len(order['trials'])}\n")
        alive[k] = folder, trial["point"]
    done = [len(lines(folder)) for folder, _ in alive.values()]
    print("begins after", *done, flush=True)
    for step in range(min(done) + 1, STEPS + 1):
        time.sleep(PAUSE)
        for k, (folder, point) in list(alive.items()):
            seed = point.get("seed")
            if seed == FAILS_ONCE and not (folder / "failed").exists():
                (folder / "failed").touch()
                print("error: boom")
                return 1
            if k in asked or everyone.is_set():
                end(alive, k, "stopped", 75)
            elif seed == DIVERGES:
                end(alive, k, "exit_code", 3)
            else:
                row = {"step": step, "split": "validation", "loss": loss(point, step)}
                kept = lines(folder)[: step - 1]
                text = "".join(f"{line}\n" for line in [*kept, json.dumps(row)])
                (folder / "draft").write_text(text)
                (folder / "draft").replace(folder / "metrics.jsonl")
        waiting = [f for f, point in alive.values() if point.get("seed") == WAITS]
        while waiting and not (asked or everyone.is_set()):
            if (waiting[0] / "go").exists():
                break
            time.sleep(0.01)
    for k in list(alive):
        end(alive, k, "exit_code", 0)
    return 0


def end(alive, k, name, code):
    folder, _ = alive.pop(k)
    (folder / "draft").write_text(f"{code}\n")
    (folder / "draft").replace(folder / name)


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def listen(asked):
    for line in sys.stdin:
        asked.add(int(line))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
