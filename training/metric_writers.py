"""Writers of metrics: metrics.jsonl, TensorBoard event files and the console.

A run that resumes first drops what was written after its newest checkpoint, from
event files too, so that an interrupted run leaves the log of an uninterrupted one.
(The `purge_step` of tensorboardX only hides such events, and only in TensorBoard.)
"""

import functools
import json
import os
import pkgutil
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils import strict_json
from utils.paths import is_remote

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event

PROGRESS_BAR = "training.progress_bar:ProgressBar"  # imported on a terminal only
FILES_ONLY = ("watch",)  # splits with too many metrics for a line of the console
UPLOAD_INTERVAL = 30  # seconds between two uploads of a growing file
# A record of an event file: the length of an Event (8 bytes), a checksum of the
# length (4), the Event as a protocol buffer, its checksum (4).
RECORD_HEADER, RECORD_FOOTER = 12, 4


class MetricsFile:
    """metrics.jsonl: one JSON object a line, each step of a split once.

    An object of a bucket cannot grow: there the file is uploaded whole, at most twice
    a minute and at every `flush`.
    """

    def __init__(self, path: Path, last: dict[str, int]):
        """Drops lines after the newest checkpoint, and damaged lines.

        Args:
          last: newest step to keep, by split; splits without one lose all lines.
        """
        if path.exists():
            content = path.read_bytes().decode(errors="replace")
            lines = content.splitlines(keepends=True)
            rows = [parse_metrics_line(line) for line in lines]
            if damaged := sum(row is None for row in rows[:-1]):
                print(
                    f"warning: {damaged} lines of {path} are damaged, and left out",
                    file=sys.stderr,
                )
            kept = [
                line
                for line, row in zip(lines, rows, strict=True)
                if row and row["step"] <= last.get(row["split"], -1)
            ]
            if kept != lines:
                draft = path.with_suffix(".draft")
                draft.write_text("".join(kept), encoding="utf8")
                draft.replace(path)
        self.path, self._content = path, None
        if is_remote(path):
            self._content = path.read_bytes() if path.exists() else b""
            self._uploaded = time.monotonic()

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Adds a line; values that are not finite become null."""
        line = strict_json.dumps({"step": step, "split": split, **metrics}) + "\n"
        if self._content is None:
            with self.path.open("ab") as file:
                file.write(line.encode())
            return
        self._content += line.encode()
        if time.monotonic() - self._uploaded > UPLOAD_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Returns when all lines would outlive this process."""
        if self._content is not None:
            self.path.write_bytes(self._content)
            self._uploaded = time.monotonic()


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl without damaged ones; none without a file."""
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True)
    return [row for row in map(parse_metrics_line, lines) if row is not None]


def parse_metrics_line(line: str) -> dict | None:
    """Returns the object of a line, or None for a damaged or unfinished one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    is_row = (
        isinstance(row, dict)
        and isinstance(row.get("step"), int)
        and isinstance(row.get("split"), str)
    )
    return row if is_row and line.endswith("\n") else None


class TensorBoard:
    """TensorBoard event files; tags are `split/metric`."""

    def __init__(self, folder: Path, last: dict[str, int], run_id: str = ""):
        """Drops events after the newest checkpoint; see `MetricsFile`.

        Args:
          run_id: part of the names of the run's files; others are left alone.
        """
        drop_events(folder, last, run_id)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.local_folder = folder, folder
        if is_remote(folder):  # events are written locally and uploaded
            self.local_folder = Path(tempfile.mkdtemp(prefix="events-"))
        # Names of event files hold seconds, which may repeat.
        self.suffix = f".{run_id}-{uuid.uuid4().hex[:8]}"

    @functools.cached_property
    def writer(self):
        """Writer of tensorboardX, opened by the first line of the log."""
        # tensorboardX imports the clients of Google Cloud, a third of a second.
        from tensorboardX.event_file_writer import EventsWriter

        # Not SummaryWriter: its `flush` does not wait for its queue.
        return EventsWriter(str(self.local_folder / "events"), self.suffix)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes one scalar for each metric."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in metrics.items():
            summary = scalar(f"{split}/{name}", value)
            event = Event(step=step, wall_time=time.time(), summary=summary)
            self.writer.write_event(event)
        self.writer.flush()

    def flush(self) -> None:
        """Returns when all scalars would outlive this process."""
        if self.local_folder != self.folder:
            for path in self.local_folder.iterdir():
                (self.folder / path.name).write_bytes(path.read_bytes())


def read_events(content: bytes) -> Iterator[tuple[bytes, "Event"]]:
    """Yields each whole record of an event file and the Event in it."""
    from tensorboardX.proto.event_pb2 import Event

    start = 0
    while start + RECORD_HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + RECORD_HEADER + length + RECORD_FOOTER
        if end > len(content):
            return
        event = Event()
        event.ParseFromString(content[start + RECORD_HEADER : end - RECORD_FOOTER])
        yield content[start:end], event
        start = end


def drop_events(folder: Path, last: dict[str, int], run_id: str) -> None:
    """Removes scalars after the newest step of their split from a run's event files."""

    def is_stale(event, tag):
        return event.step > last.get(tag.partition("/")[0], -1)

    for path in sorted(folder.glob("events.out.tfevents.*")):
        if run_id not in path.name:
            continue
        content = path.read_bytes()
        kept = b"".join(
            record
            for record, event in read_events(content)
            if not any(is_stale(event, value.tag) for value in event.summary.value)
        )
        if kept != content:
            draft = path.with_name(f"draft.{path.name}")
            draft.write_bytes(kept)
            draft.replace(path)


class PlainConsole:
    """Metrics on standard output, one line at a time."""

    def __init__(self, steps: int, step: int, unit: str = "tokens"):
        self.steps, self.first_step, self.unit = steps, step, unit
        self.start = time.monotonic()

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Prints the metrics of a step in one line, if there are few."""
        if split not in FILES_ONLY:
            self.show(self.format(step, split, metrics), step, split)

    def show(self, line: str, step: int, split: str) -> None:
        """Prints one line to standard output."""
        print(line, flush=True)

    def format(self, step: int, split: str, metrics: dict[str, float]) -> str:
        """Returns a line of training or validation."""
        if split == "train":
            mfu = metrics.get("mfu")
            return (
                f"step {step}/{self.steps}  loss {metrics['loss']:.4f}  "
                f"{metrics[f'{self.unit}_per_second']:,.0f} {self.unit}/s  "
                f"{'' if mfu is None else f'{mfu:.0%} of peak  '}"
                f"{self._time_left(step)} left"
            )
        named = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        return f"step {step}/{self.steps}  {split}: {named}"

    def flush(self) -> None:
        pass  # every line is printed at once

    def _time_left(self, step: int) -> str:
        done = max(step - self.first_step, 1)
        seconds = (time.monotonic() - self.start) / done * (self.steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{minutes:02}:{seconds:02}"
        return f"{hours}:{clock}" if hours else clock.removeprefix("0")


def open_console(steps: int, step: int, unit: str) -> PlainConsole:
    """Opens a progress bar on a terminal, plain lines elsewhere."""
    is_live = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    console_class = pkgutil.resolve_name(PROGRESS_BAR) if is_live else PlainConsole
    return console_class(steps, step, unit)


def open_writers(
    workdir: Path,
    last: dict[str, int],
    *,
    step: int,
    steps: int,
    run_id: str = "",
    unit: str = "tokens",
) -> list[MetricsFile | TensorBoard | PlainConsole]:
    """Opens all writers of a run directory.

    Args:
      last: newest step to keep, by split; see `MetricsFile`.
      step: the step from which training continues.
      steps: the step at which training ends.
      run_id: id of the run (training/run_dir.py).
      unit: what `<unit>_per_second` counts.
    """
    return [
        MetricsFile(workdir / "metrics.jsonl", last),
        TensorBoard(workdir / "tensorboard", last, run_id),
        open_console(steps, step, unit),
    ]
