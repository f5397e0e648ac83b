"""Uploads a run directory to a tracker, in a process beside training.

python -m training.trackers.upload TRACKER WORKDIR [FILE...]

follows metrics.jsonl until standard input ends, then uploads what is left. The file
tracker/<name>.json of the run directory has the id of the remote run and what it has,
so that each step is uploaded once, whichever process does it.
"""

import hashlib
import json
import os
import pkgutil
import select
import signal
import sys
import tempfile
from pathlib import Path

from training.run_dir import RunDirectory
from training.trackers.registry import FOLDER, TRACKERS, uploading
from utils.paths import is_remote

# What is uploaded beside the log; a score card's values become metrics, too.
FILES = ("config.json", "about.json", "changes.patch", "eval/*.json", "samples/*.jsonl")
CARDS = "eval/"
POLL_SECONDS = 2  # between two looks at the log; at 15 times as many for files
FILES_INTERVAL = 15


class Upload:
    """Progress of one run's upload to one tracker."""

    def __init__(self, name: str, directory: RunDirectory):
        self.directory, self.record = directory, f"{FOLDER}/{name}.json"
        self.state = {"id": None, "last": {}, "files": {}}
        if (directory.path / self.record).exists():
            self.state = directory.read_json(self.record)
        config = directory.read_json("config.json")
        title = Path(str(directory.path)).name
        tracker = pkgutil.resolve_name(TRACKERS[name])
        self.tracker = tracker(self.state["id"], title, directory.run_id, config)
        self.state |= {"id": self.tracker.id, "url": self.tracker.url}
        self._save()
        self._offset, self._last_line = 0, b""

    def _save(self) -> None:
        self.directory.write_json(self.record, self.state)

    def send_log(self) -> None:
        """Uploads the lines that were added to metrics.jsonl."""
        path = self.directory.path / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offset - len(self._last_line))
            content = file.read()
            if not content.startswith(self._last_line):  # a rewind made the log shorter
                file.seek(0)
                content, self._offset, self._last_line = file.read(), 0, b""
        content = content.removeprefix(self._last_line)
        end = content.rfind(b"\n") + 1
        self._offset += end
        if end:
            self._last_line = content[:end].splitlines(keepends=True)[-1]
        rows, sent = [], self.state["last"]
        newest = dict(sent)
        for row in map(json.loads, content[:end].splitlines()):
            step, split = row.pop("step"), row.pop("split")
            if step > newest.get(split, -1):
                rows.append((step, split, prefixed(split, row)))
                newest[split] = step
        if not rows:
            return
        self.state["last"] = newest
        self._save()  # before: if this process is killed, no step is uploaded twice
        try:
            for step, split, metrics in rows:
                self.tracker.log(step, metrics)
                sent[split] = step
        except Exception:
            self.state["last"] = sent
            self._save()
            raise

    def send_files(self) -> None:
        """Uploads files of the run directory that are new or have changed."""
        for pattern in FILES:
            for path in sorted(self.directory.path.glob(pattern)):
                self.send_file(path, str(path.relative_to(self.directory.path)))

    def send_file(self, path: Path, name: str) -> None:
        """Uploads one file, unless the remote run has it; names may contain folders."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self.state["files"].get(name) == digest:
            return
        if name.startswith(CARDS):
            card = json.loads(content)
            values = {key: score["value"] for key, score in card["scores"].items()}
            self.tracker.log(card["step"], prefixed(card["split"], values))
        if is_remote(path):
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / path.name
                local.write_bytes(content)
                self.tracker.log_file(local, name)
        else:
            self.tracker.log_file(Path(path), name)
        self.state["files"][name] = digest
        self._save()


def prefixed(split: str, metrics: dict[str, float | None]) -> dict[str, float]:
    """Returns finite metrics by the names that TensorBoard shows, `split/metric`."""
    return {f"{split}/{k}": x for k, x in metrics.items() if x is not None}


def upload(name: str, workdir: str, *files: str) -> None:
    """Uploads a run until standard input ends, then what is left, and the files."""
    directory = RunDirectory(workdir)
    with uploading(directory, wait=True):
        progress = Upload(name, directory)
        polls = 0
        while True:
            has_ended = bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0])
            progress.send_log()
            if has_ended or polls % FILES_INTERVAL == 0:
                progress.send_files()
            polls += 1
            if has_ended:
                break
        for file in map(Path, files):
            progress.send_file(file, file.name)
        progress.tracker.close()


def main() -> int:
    """Returns the exit code; a failure is one line on standard error."""
    name, *paths = sys.argv[1:]
    terminal = os.fdopen(os.dup(2), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries of trackers talk much
        os.dup2(silence, stream)
    os.nice(10)
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    try:
        upload(name, *paths)
    except Exception as error:  # each library raises its own classes
        reason = " ".join(str(error).split())[:300]
        print(
            f"warning: {name} fails, and is left alone until the run resumes or is "
            f"evaluated ({type(error).__name__}: {reason})",
            file=terminal,
            flush=True,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
