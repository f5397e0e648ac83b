"""Where metrics go: metrics.jsonl, TensorBoard files and the console."""

import json
import math
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from training.append_only_file import AppendOnlyFile
from training.event_files import keep_events
from training.progress import TrainProgress
from utils.paths import is_remote


class MetricsFile:
    """metrics.jsonl: one object a line, each step of a split once."""

    def __init__(self, path: Path, last: dict[str, int]):
        """Drops lines that an interrupted run wrote after it last saved.

        Args:
          last: by split, the newest step that is known; of others nothing is.
        """
        if path.exists():
            content = path.read_bytes().decode(errors="replace")
            lines = content.splitlines(keepends=True)
            rows = [_row(line) for line in lines]
            if damaged := sum(row is None for row in rows[:-1]):
                told = f"{damaged} lines of {path} are damaged, and left out"
                print(f"warning: {told}", file=sys.stderr)
            kept = [
                line
                for line, row in zip(lines, rows, strict=True)
                if row and row["step"] <= last.get(row["split"], -1)
            ]
            if kept != lines:
                draft = path.with_suffix(".draft")
                draft.write_text("".join(kept), encoding="utf8")
                draft.replace(path)
        self.file = AppendOnlyFile(path)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Adds a line; what is not finite is written as null."""
        values = {
            name: value if math.isfinite(value) else None
            for name, value in metrics.items()
        }
        line = json.dumps({"step": step, "split": split, **values})
        self.file.add(f"{line}\n".encode())

    def flush(self) -> None:
        """Comes back when all lines are where they are kept."""
        self.file.flush()


def _row(line: str) -> dict | None:
    """What a line says; None where it is damaged, or not whole."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    is_row = isinstance(row, dict) and {"step", "split"} <= row.keys()
    return row if is_row and line.endswith("\n") else None


class Console:
    """One live line on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int, step: int):
        self.steps, self.first_step = steps, step
        self.begin = time.monotonic()
        self.live = sys.stdout.isatty()

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Training metrics overwrite each other; those of other splits stay."""
        if split == "train":
            text = (
                f"step {step}/{self.steps}  loss {metrics['loss']:.4f}  "
                f"{metrics['tokens_per_second']:,.0f} tokens/s  "
                f"{_share(metrics)}"
                f"{self._time_left(step)} left"
            )
        else:
            named = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            text = f"step {step}/{self.steps}  {split}: {named}"
        stays = split != "train" or not self.live
        start = "\r\x1b[K" if self.live else ""
        print(start + text, end="\n" if stays else "", flush=True)

    def flush(self) -> None:
        """Nothing waits."""

    def _time_left(self, step: int) -> str:
        done = max(step - self.first_step, 1)
        seconds = (time.monotonic() - self.begin) / done * (self.steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{minutes}:{seconds:02}"
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else clock


def _share(metrics: dict[str, float]) -> str:
    """Of what the devices could do at most, where it is known."""
    share = metrics.get("mfu")
    return "" if share is None else f"{share:.0%} of peak  "


class TensorBoard:
    """Event files beside metrics.jsonl; tags are `split/metric`."""

    def __init__(self, folder: Path, last: dict[str, int]):
        """Drops what an interrupted run wrote after it last saved."""
        keep_events(
            folder,
            lambda step, tag: step <= last.get(tag.partition("/")[0], -1),
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.written = folder, folder
        if is_remote(folder):  # written here, copied there
            self.written = Path(tempfile.mkdtemp(prefix="events-"))
        suffix = f".{uuid.uuid4().hex[:8]}"  # names hold seconds, which may repeat
        # Not SummaryWriter: its `flush` does not wait for what it has queued.
        self.writer = EventsWriter(str(self.written / "events"), suffix)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """One scalar a metric."""
        for name, value in metrics.items():
            summary = scalar(f"{split}/{name}", value)
            self.writer.write_event(
                Event(step=step, wall_time=time.time(), summary=summary)
            )
        self.writer.flush()

    def flush(self) -> None:
        """Comes back when all scalars are where they are kept."""
        if self.written != self.folder:
            for path in self.written.iterdir():
                (self.folder / path.name).write_bytes(path.read_bytes())


class MetricWriters:
    """All of them at once."""

    def __init__(
        self,
        workdir: Path,
        progress: TrainProgress,
        *,
        step: int,
        steps: int,
        silent: bool = False,
    ):
        """Args: step: the one training goes on from. steps: the one it ends at.

        silent: whether nothing is written, since another process does.
        """
        self.all = ()
        if silent:
            return
        last = {"train": progress.last_logged, "validation": progress.last_validated}
        self.all = (
            MetricsFile(workdir / "metrics.jsonl", last),
            TensorBoard(workdir / "tensorboard", last),
            Console(steps, step),
        )

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Hands a split's metrics to every writer."""
        for writer in self.all:
            writer.write(step, split, metrics)

    def flush(self) -> None:
        """Comes back when all that was written would outlive this process."""
        for writer in self.all:
            writer.flush()
