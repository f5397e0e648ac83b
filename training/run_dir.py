"""The run directory, the only interface between training and everything after it.

config.json   the resolved config            metrics.jsonl   the log
about.json    format, run_id, versions, data tensorboard/    the log as events
tokenizer/    <side>.json                    checkpoints/    <step>/
eval/         <split>-<step>.json            samples/        <split>-<step>.jsonl
plots/        pictures                       places.json     folders of the data
tracker/      <name>.json: what a tracker has   changes.patch   uncommitted changes
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from etils import epath

from utils import strict_json
from utils.errors import UserError
from utils.paths import DATA_PLACES, absolute_address, is_remote, resolve_path

# Version of the layout: rises when config keys or names of parameters change.
FORMAT = 2

# Keys that may differ when a run resumes, perhaps on another machine: the data and the
# computation may not.
MACHINE_SPECIFIC_KEYS = (
    *(f"data.{key}" for key in DATA_PLACES),
    *("parallel.mode", "parallel.data", "parallel.fsdp", "parallel.tensor"),
    *("track", "every.checkpoint_minutes", "every.watch", "every.fingerprint"),
    *("on_stall", "stall_minutes"),
)
# Keys that may differ when a run resumes: these, and those of what a spike changes.
CHANGEABLE_KEYS = (*MACHINE_SPECIFIC_KEYS, "on_spike", "spike_threshold", "max_skips")


class RunDirectory:
    """Paths and small files of one run, in a folder or a bucket."""

    def __init__(self, path: str | Path | epath.Path):
        """Opens a path; raises UserError where it cannot be reached."""
        self.path = resolve_path(path)
        self.checkpoints = self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").exists()

    @property
    def is_complete(self) -> bool:
        """Whether all files were written that training starts with."""
        return self.exists and (self.path / "about.json").exists()

    @property
    def run_id(self) -> str:
        """Random id of the run, which its checkpoints and event files have, too."""
        has_about = (self.path / "about.json").exists()
        return self.read_json("about.json").get("run_id", "") if has_about else ""

    def check_config(self, config: dict) -> None:
        """Raises UserError where there is another run, or something else."""
        if not self.exists:
            files = self.path.iterdir() if self.path.exists() else ()
            if any(not file.name.endswith(".draft") for file in files):
                raise UserError(
                    f"{self.path} is not empty and not a run directory: "
                    "choose another --workdir"
                )
            return
        differences = describe_differences(self.read_config(), config)
        if differences:
            raise UserError(
                f"{self.path} holds a run of another config: {'; '.join(differences)}. "
                "Choose another --workdir, or give the same config to resume"
            )

    def check_format(self) -> None:
        """Raises UserError for a run of another version of the layout."""
        if not self.is_complete:
            return
        found = self.read_json("about.json").get("format", 1)
        if found != FORMAT:
            age = "an older" if found < FORMAT else "a newer"
            raise UserError(
                f"{self.path} was made by {age} version of this code (format {found}), "
                f"and this one reads format {FORMAT}: use the version that made it, or "
                "begin a new run in another --workdir"
            )

    def read_config(self) -> dict:
        """Reads the resolved config, with the folders of the data of the last start.

        Raises:
          UserError: there is no run, or one of another version of the layout.
        """
        if not self.exists:
            raise UserError(
                f"no run in {self.path} (no config.json there): "
                "name a directory that train.py made"
            )
        self.check_format()
        config = self.read_json("config.json")
        if (self.path / "places.json").exists():
            places = self.read_json("places.json")
            config["data"] |= {key: self._find(places[key]) for key in DATA_PLACES}
        return config

    def write_places(self, data: Mapping[str, str | None]) -> None:
        """Records the folders that the section `data` of a config names."""
        places = {key: self._addresses(data[key]) for key in DATA_PLACES}
        self.write_json("places.json", places)

    def _addresses(self, place: str | None) -> list[str]:
        """Returns the paths of a folder: relative to this directory, and absolute.

        The first finds it after both have moved together, the second after this
        directory alone has. In a bucket or below "~", a folder has one address.
        """
        if place is None:
            return []
        address = absolute_address(place)
        if is_remote(self.path) or not os.path.isabs(address):
            return [address]
        return [os.path.relpath(address, self.path), address]

    def _find(self, addresses: list[str]) -> str | None:
        """Returns the first of a folder's addresses that exists, or else the last."""
        *relative, last = addresses or [None]
        for address in relative:
            path = os.path.normpath(os.path.join(os.path.abspath(self.path), address))
            if os.path.exists(path):
                return path
        return last

    def write_about(self, facts: dict) -> None:
        """Writes about.json with the format and a new id, which completes a run."""
        run_id = secrets.token_hex(8)
        self.write_json("about.json", {"format": FORMAT, "run_id": run_id, **facts})

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file."""
        self._make_parent(name).write_text(text, encoding="utf8")

    def read_json(self, name: str) -> dict:
        """Reads a JSON object; raises UserError for a damaged file."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf8"))
        except ValueError as error:  # no JSON, or no UTF-8
            raise UserError(f"{path} is damaged: {error}") from error

    def write_json(self, name: str, content: dict) -> Path | epath.Path:
        """Writes a JSON file atomically; numbers that are not finite become null."""
        path = self._make_parent(name)
        text = strict_json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        if is_remote(path):  # objects of buckets are written atomically
            path.write_text(text, encoding="utf8")
            return path
        draft = path.with_name(path.name + ".draft")
        draft.write_text(text, encoding="utf8")
        draft.replace(path)
        return path

    def write_lines(self, name: str, rows: list[dict]) -> None:
        """Writes a JSON object on each line."""
        lines = (strict_json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._make_parent(name).write_text("".join(lines), encoding="utf8")

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a compressed .npz file atomically."""
        path = self._make_parent(name)
        if is_remote(path):  # objects of buckets are written atomically
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)
            return
        draft = path.with_name(path.name + ".draft")
        with draft.open("wb") as file:
            np.savez_compressed(file, **arrays)
        draft.replace(path)

    def _make_parent(self, name: str) -> Path | epath.Path:
        """Returns the path of a file, whose folder is created if missing."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_tokenizers(self, documents: dict[str, str]) -> None:
        """Writes the tokenizers, so that the run can be used without its corpus."""
        for side, document in documents.items():
            path = self._make_parent(f"tokenizer/{side}.json")
            path.write_text(document, encoding="utf8")

    def read_tokenizers(self) -> dict[str, str]:
        """Reads the tokenizers, by side."""
        return {
            file.stem: file.read_text(encoding="utf8")
            for file in sorted((self.path / "tokenizer").glob("*.json"))
        }


def flatten_config(config: dict, prefix: str = "") -> dict:
    """Returns nested keys joined by dots."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten_config(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def describe_differences(there: dict, here: dict) -> list[str]:
    """Describes each difference of two configs, except for CHANGEABLE_KEYS."""
    old, new = flatten_config(there), flatten_config(here)
    keys = [key for key in {**old, **new} if key not in CHANGEABLE_KEYS]
    return [
        f"{key} is {old.get(key)!r} there and {new.get(key)!r} here"
        for key in keys
        if old.get(key) != new.get(key)
    ]
