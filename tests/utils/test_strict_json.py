"""Whatever is written, any JSON parser reads it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from training.run_dir import RunDirectory
from utils import strict_json

ROOT = Path(__file__).parents[2]
CONTENT = {
    "value": math.nan,
    "interval": [math.inf, (-math.inf, 1.5)],
    "numpy": np.float64("nan"),
    "text": "NaN",
}
WRITTEN = {
    "value": None,
    "interval": [None, [None, 1.5]],
    "numpy": None,
    "text": "NaN",
}
# What these write has texts, counts and seconds alone.
WITHOUT_SCORES = {
    *("training/checksums.py", "data/token_writer.py", "data/storage.py"),
    "data/understanding/documents.py",
    *("data/tokenizers/build.py", "data/batching/buckets.py"),
    *("data/corpora/local_files.py", "benchmarks/harness/protocol.py"),
    *("benchmarks/startup.py", "benchmarks/fault_injection.py", "benchmarks/decode.py"),
    *("sweeps/trial_process.py", "sweeps/scheduler.py", "sweeps/launch.py"),
    *("analysis/report/sweep_results.py", "analysis/report/comparison.py"),
    *("analysis/compare/plan.py", "utils/safetensors.py"),
}


def parse(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null():
    assert parse(strict_json.dumps(CONTENT, indent=1)) == WRITTEN
    with pytest.raises(ValueError, match="NaN is no JSON"):
        parse(json.dumps(CONTENT))


def test_all_else_is_as_python_writes_it():
    content = {"a": [1, 2.5, None, True], 3: ("ä", {})}
    options = {"indent": 2, "ensure_ascii": False}
    assert strict_json.dumps(content, **options) == json.dumps(content, **options)
    with pytest.raises(TypeError):
        strict_json.dumps({"a": np.zeros(2)})


def test_files_of_runs_hold_null(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.write_json("eval/test-6.json", CONTENT)
    directory.write_lines("samples/test-6.jsonl", [CONTENT, CONTENT])
    assert parse((tmp_path / "eval" / "test-6.json").read_text()) == WRITTEN
    for line in (tmp_path / "samples" / "test-6.jsonl").read_text().splitlines():
        assert parse(line) == WRITTEN


def test_only_files_without_scores_write_json_by_other_means():
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ROOT.iterdir()
        if (folder / "__init__.py").exists()
        for path in folder.rglob("*.py")
        if " json.dumps(" in path.read_text().replace("(json", "( json")
    }
    assert found - {"utils/strict_json.py"} <= WITHOUT_SCORES
