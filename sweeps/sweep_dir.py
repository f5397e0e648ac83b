"""The directory of a sweep and its files.

sweep.json      description: the resolved config and the search space
trials/<n>/     run directory of trial n
logs/<n>.log    output of its processes
trials.jsonl    results, one trial a line
journal.log     Optuna's journal, unless --storage names a database
"""

import json
import uuid
from pathlib import Path

from training.run_dir import describe_differences
from utils import strict_json
from utils.errors import UserError
from utils.paths import is_remote, resolve_path


class SweepDirectory:
    """Paths and small files of one sweep."""

    def __init__(self, path: str | Path):
        """Raises UserError for a bucket, where a journal cannot be appended to."""
        if is_remote(path):
            raise UserError(
                f"--workdir={path}: a sweep needs a directory on a disk, which several "
                "machines may share"
            )
        self.path = resolve_path(path)
        self.journal = self.path / "journal.log"

    def check(self) -> None:
        """Raises UserError if the directory holds something other than a sweep."""
        if (self.path / "sweep.json").exists() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose another --workdir")
        names = [p.name for p in self.path.iterdir() if not p.name.endswith(".draft")]
        if names:
            kind = "a run directory" if "config.json" in names else "not empty"
            raise UserError(
                f"{self.path} is {kind} and not a sweep's: choose another --workdir"
            )

    def init(self, description: dict) -> None:
        """Writes the description of a new sweep, or checks that of an old one."""
        path = self.path / "sweep.json"
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf8"))
            check_description(stored, description, self.path)
        else:
            self._write("sweep.json", strict_json.dumps(description, indent=2) + "\n")
        for name in ("trials", "logs"):
            (self.path / name).mkdir(exist_ok=True)

    def run(self, trial: int) -> Path:
        """Returns the run directory of a trial."""
        return self.path / "trials" / f"{trial:04}"

    def log(self, trial: int) -> Path:
        """Returns the file of a trial's output."""
        return self.path / "logs" / f"{trial:04}.log"

    def write_results(self, rows: list[dict]) -> None:
        """Writes trials.jsonl with the results so far."""
        lines = (strict_json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._write("trials.jsonl", "".join(lines))

    def _write(self, name: str, text: str) -> None:
        """Writes a file atomically; several machines may do so at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"{name}.{uuid.uuid4().hex}.draft"
        draft.write_text(text, encoding="utf8")
        draft.replace(self.path / name)


def check_description(stored: dict, current: dict, where: object) -> None:
    """Raises UserError if a stored sweep has another config or search space."""
    current = json.loads(strict_json.dumps(current))  # tuples are stored as lists
    differences = describe_differences(stored["config"], current["config"])
    if differences:
        raise UserError(
            f"{where} holds a sweep of another config: {'; '.join(differences)}. "
            "Choose another --workdir, or give the same config to resume"
        )
    old, new = stored["space"], current["space"]
    if old != new:
        changes = [
            f"{key} was {_shorten(old.get(key))}, is {_shorten(new.get(key))}"
            for key in new
            if old.get(key) != new.get(key)
        ]
        raise UserError(
            f"the search space differs from that of the sweep in {where}: "
            f"{'; '.join(changes)}. Choose another --workdir, or give the same space "
            "to resume"
        )


def _shorten(value: object, max_length: int = 160) -> str:
    text = json.dumps(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
