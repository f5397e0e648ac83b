"""Where metrics go: metrics.jsonl, TensorBoard files and the console."""

import json
import math
import sys
import time
from pathlib import Path

import tensorboardX


class MetricsFile:
    """metrics.jsonl: one object a line, each step of a split once."""

    def __init__(self, path: Path, last_step: int):
        """Drops lines after `last_step`, which an interrupted run left behind."""
        self.path = path
        if path.exists():
            lines = path.read_text(encoding="utf8").splitlines(keepends=True)
            kept = [line for line in lines if _is_known(line, last_step)]
            if kept != lines:
                draft = path.with_suffix(".draft")
                draft.write_text("".join(kept), encoding="utf8")
                draft.replace(path)

    @property
    def seconds(self) -> float:
        """Of training, as last logged."""
        lines = self.path.read_text(encoding="utf8") if self.path.exists() else ""
        rows = [json.loads(line) for line in lines.splitlines()]
        return max((row.get("seconds") or 0.0 for row in rows), default=0.0)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Adds a line; what is not finite is written as null."""
        values = {
            name: value if math.isfinite(value) else None
            for name, value in metrics.items()
        }
        line = json.dumps({"step": step, "split": split, **values})
        with self.path.open("a", encoding="utf8") as file:
            file.write(line + "\n")


def _is_known(line: str, last_step: int) -> bool:
    """Whether a line is whole and not after a step."""
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= last_step
    except json.JSONDecodeError:
        return False


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
                f"{self._time_left(step)} left"
            )
        else:
            named = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            text = f"step {step}/{self.steps}  {split}: {named}"
        stays = split != "train" or not self.live
        start = "\r\x1b[K" if self.live else ""
        print(start + text, end="\n" if stays else "", flush=True)

    def _time_left(self, step: int) -> str:
        done = max(step - self.first_step, 1)
        seconds = (time.monotonic() - self.begin) / done * (self.steps - step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{minutes}:{seconds:02}"
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else clock


class TensorBoard:
    """Event files beside metrics.jsonl; tags are `split/metric`."""

    def __init__(self, folder: Path, last_step: int):
        """Hides what an interrupted run wrote after `last_step`."""
        self.writer = tensorboardX.SummaryWriter(
            str(folder), purge_step=last_step + 1, write_to_disk=True
        )

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """One scalar a metric."""
        for name, value in metrics.items():
            self.writer.add_scalar(f"{split}/{name}", value, step)
        self.writer.flush()


class Writers:
    """All of them at once.

    Attributes:
      seconds: of training that an interrupted run has behind it.
    """

    def __init__(self, workdir: Path, *, step: int, steps: int):
        """Args: step: the one training goes on from. steps: the one it ends at."""
        file = MetricsFile(workdir / "metrics.jsonl", step)
        self.seconds = file.seconds
        self.all = (
            file,
            TensorBoard(workdir / "tensorboard", step),
            Console(steps, step),
        )

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Hands a split's metrics to every writer."""
        for writer in self.all:
            writer.write(step, split, metrics)
