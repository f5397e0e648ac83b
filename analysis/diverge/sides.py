"""Opening of the two runs that are compared: run directories or fingerprint files."""

import dataclasses

from analysis.diverge.records import intact_checkpoints
from training.metric_writers import read_metrics
from training.observe.fingerprint import FILE, Fingerprints, read_fingerprints
from training.run_dir import RunDirectory
from utils.errors import UserError
from utils.paths import resolve_path


@dataclasses.dataclass(frozen=True)
class Side:
    """Records of one of two runs.

    Attributes:
      name: path of the run directory, or of the file of fingerprints.
      config: content of config.json.
      about: content of about.json.
      log: rows of metrics.jsonl; of a file of fingerprints, none.
      directory: None for a file of fingerprints.
    """

    name: str
    config: dict
    about: dict
    log: list[dict]
    fingerprints: Fingerprints | None
    directory: RunDirectory | None

    @property
    def checkpoints(self) -> list[int]:
        """Steps of the intact checkpoints in ascending order."""
        return intact_checkpoints(self.directory.path) if self.directory else []


def open_side(name: str) -> Side:
    """Opens a run directory or a file of fingerprints.

    Raises:
      UserError: it is neither, or a run that was killed before it started.
    """
    path = resolve_path(name)
    if path.is_file():
        found = read_fingerprints(path)
        header = found.header
        return Side(name, header["config"], header["about"], [], found, None)
    directory = RunDirectory(name)
    config = directory.read_config()
    if not directory.is_complete:
        raise UserError(
            f"{name}/about.json is missing: the run has not begun to train; compare it "
            "after its first checkpoint"
        )
    file = directory.path / FILE
    return Side(
        name,
        config,
        directory.read_json("about.json"),
        read_metrics(directory.path / "metrics.jsonl"),
        read_fingerprints(file) if file.exists() else None,
        directory,
    )
