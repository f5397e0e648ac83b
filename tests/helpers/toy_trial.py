"""Trial that writes a metrics.jsonl step by step, without training.

It reads a description as sweeps/trial_process.py does and has its exit codes. Some
seeds make it fail. Its run directory is a folder, or one of the bucket on loopback.
"""

import json
import os
import select
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

STEPS, PAUSE = 10, float(os.environ.get("TOY_PAUSE", 0.02))
DIVERGES, FAILS, FAILS_ONCE, WAITS, WAITS_LATER = 100, 101, 102, 103, 104


def exit_with_parent():
    lease = float(os.environ.get("TOY_LEASE_SECONDS", 60))
    while select.select([0], [], [], lease)[0] and os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


class BucketFile:
    """Object of the bucket on loopback, as a path; the requests may fail."""

    def __init__(self, address):
        bucket, _, name = address.removeprefix("gs://").partition("/")
        host = os.environ["STORAGE_EMULATOR_HOST"]
        name = urllib.parse.quote(name, safe="")
        self.address = address
        self.get = f"{host}/storage/v1/b/{bucket}/o/{name}?alt=media"
        self.put = f"{host}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"

    def __truediv__(self, name):
        return BucketFile(f"{self.address}/{name}")

    def mkdir(self, **_):
        pass

    def request(self, url, content=None):
        while True:
            try:
                return urllib.request.urlopen(url, content, timeout=5).read().decode()
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    raise FileNotFoundError(url) from error
            except OSError:
                pass
            time.sleep(0.02)

    def exists(self):
        try:
            return self.read_text() is not None
        except FileNotFoundError:
            return False

    def read_text(self):
        return self.request(self.get)

    def write_text(self, text):
        self.request(self.put, text.encode())


def open_folder(path):
    return BucketFile(path) if path.startswith("gs://") else Path(path)


def append(path, text):
    """Appends to a file; to an object of a bucket by writing it whole."""
    if isinstance(path, BucketFile):
        path.write_text((path.read_text() if path.exists() else "") + text)
        return
    with path.open("a") as file:
        file.write(text)


def replace(path, text):
    """Writes a file atomically."""
    if isinstance(path, BucketFile):
        path.write_text(text)
        return
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)


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
    folder = open_folder(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    if spec["part"]:  # process 0 writes the run directory
        append(folder / f"part-{spec['part']}", f"{spec['distributed']}\n")
        while not (folder / "exit_code").exists():
            time.sleep(0.01)
        return 0
    while spec["distributed"] and not (folder / "part-1").exists():
        time.sleep(0.01)
    append(folder / "processes", f"{os.getpid()}\n")
    seed = point.get("seed")
    if seed == DIVERGES:
        return 3
    if seed == FAILS or (seed == FAILS_ONCE and not (folder / "failed").exists()):
        (folder / "failed").write_text("")
        print("error: boom")
        return 1
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    print(f"starts after {len(lines)}", flush=True)
    for step in range(len(lines) + 1, STEPS + 1):
        if seed == WAITS or (seed == WAITS_LATER and step > STEPS // 2):
            stop.wait(60)
        if stop.is_set():
            return 75
        time.sleep(PAUSE)
        row = {"step": step, "split": "validation", "loss": loss(point, step)}
        append(metrics, json.dumps(row) + "\n")
    append(folder / "ends", "end\n")
    (folder / "exit_code").write_text("0\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
