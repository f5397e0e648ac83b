"""The directory of a sweep: what it leaves behind, and where.

sweep.json      what is tried: the resolved config and the space
trials/<n>/     an ordinary run directory a trial
logs/<n>.log    what a trial's processes wrote
trials.jsonl    what came of each trial, one object a line
journal.log     Optuna's journal, unless --storage names a database
"""

import json
import uuid
from pathlib import Path

from training.run_dir import describe_differences
from utils.errors import UserError
from utils.paths import is_remote


class SweepDirectory:
    """Paths and small files of one sweep."""

    def __init__(self, path: str | Path):
        """Raises UserError for a bucket, where a journal cannot grow."""
        if is_remote(path):
            raise UserError(
                f"--workdir={path}: a sweep's directory lies on a disk, which several "
                "machines may share"
            )
        self.path = Path(path).expanduser()
        self.journal = self.path / "journal.log"

    def check(self) -> None:
        """Raises UserError where something else than a sweep is."""
        if (self.path / "sweep.json").exists() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another --workdir")
        found = [p.name for p in self.path.iterdir() if not p.name.endswith(".draft")]
        if found:
            what = "a run directory" if "config.json" in found else "not empty"
            raise UserError(
                f"{self.path} is {what} and not a sweep's: choose another --workdir"
            )

    def begin(self, description: dict) -> None:
        """Writes what is tried, or checks that it is what was tried before."""
        path = self.path / "sweep.json"
        if path.exists():
            known = json.loads(path.read_text(encoding="utf8"))
            check_same(known, description, self.path)
        else:
            self._write("sweep.json", json.dumps(description, indent=2) + "\n")
        for name in ("trials", "logs"):
            (self.path / name).mkdir(exist_ok=True)

    def run(self, slot: int) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{slot:04}"

    def log(self, slot: int) -> Path:
        """What a trial's processes wrote."""
        return self.path / "logs" / f"{slot:04}.log"

    def write_results(self, rows: list[dict]) -> None:
        """Writes trials.jsonl, as far as the sweep has come."""
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._write("trials.jsonl", "".join(lines))

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all; several machines' processes may write at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"{name}.{uuid.uuid4().hex}.draft"
        draft.write_text(text, encoding="utf8")
        draft.replace(self.path / name)


def check_same(there: dict, here: dict, where: object) -> None:
    """Raises UserError if a sweep of another config or space is there."""
    here = json.loads(json.dumps(here))  # tuples are lists there
    config = describe_differences(there["config"], here["config"])
    if config:
        raise UserError(
            f"{where} holds a sweep of another config: {'; '.join(config)}. Choose "
            "another --workdir, or give the same config to go on"
        )
    if there["space"] != here["space"]:
        changed = _changes(there["space"], here["space"])
        raise UserError(
            f"the space has changed since the sweep in {where} began: {changed}. "
            "Choose another --workdir, or give the same space to go on"
        )


def _changes(there: dict, here: dict) -> str:
    """The parts of a space that differ, the old first."""
    return "; ".join(
        f"{key} was {_short(there.get(key))}, is {_short(here.get(key))}"
        for key in here
        if there.get(key) != here.get(key)
    )


def _short(value: object, most: int = 160) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
