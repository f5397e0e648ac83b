"""Examples of an exported file: inputs, and the outputs of its own programs."""

import contextlib
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from analysis.export.archive import RUNNER, pack
from data.understanding.markers import MASK
from experiment.restore import TrainedRun
from utils import strict_json
from utils.errors import UserError
from utils.text_files import read_lines

MAX_WORDS = 24  # of an input that is taken from running text


def example_inputs(run: TrainedRun, file: str | None, count: int) -> list[str]:
    """Returns at most `count` lines, none of which is blank.

    They are those of a file, or sources of samples of an evaluation, or texts of the
    validation split, which needs the corpus.

    Raises:
      UserError: there is none.
    """
    if file:
        found = iter(read_lines("--inputs", Path(file).expanduser()))
    else:
        found = _samples(run) or _texts(run)
    lines = list(itertools.islice(filter(str.strip, found), count))
    if not lines:
        place = f"--inputs={file}" if file else "the validation split"
        raise UserError(f"{place} has no line with text")
    return lines


def _samples(run: TrainedRun) -> list[str]:
    """Returns sources of the samples of an evaluation; [] if there is none."""
    for path in sorted((run.directory.path / "samples").glob("*.jsonl")):
        rows = map(json.loads, path.read_bytes().splitlines())
        sources = [row["source"] for row in rows if "source" in row]
        if sources:
            return sources
    return []


def _texts(run: TrainedRun) -> Iterator[str]:
    """Yields texts of the validation split, cut to MAX_WORDS words."""
    task = run.experiment.cfg.task
    for text, *_ in run.open_dataset().texts("validation"):
        for line in text.splitlines():
            words = line.split(" ")[:MAX_WORDS]
            if task == "masked_language_modeling" and len(words) > 1:
                words[len(words) // 2] = MASK
            elif task == "masked_language_modeling":
                continue
            yield " ".join(words)


def add_outputs(files: dict[str, bytes]) -> bytes:
    """Returns the archive of files, after the outputs of all examples are added."""
    examples = json.loads(files["examples.json"])
    with import_runner() as runner:
        bundle = runner.Bundle(pack(files), "the exported file")
        for name in bundle.about["programs"]:
            outputs = bundle.outputs(examples["inputs"], name, None)
            examples["outputs"][name] = [[text for text, _ in row] for row in outputs]
    text = strict_json.dumps(examples, indent=1, ensure_ascii=False) + "\n"
    files["examples.json"] = text.encode()
    return pack(files)


@contextlib.contextmanager
def import_runner():
    """Imports the runner as it is imported from an exported file."""
    names = [path.stem for path in RUNNER.glob("*.py")]
    sys.path.insert(0, str(RUNNER))
    try:
        yield importlib.import_module("run")
    finally:
        sys.path.remove(str(RUNNER))
        for name in names:
            sys.modules.pop(name, None)
