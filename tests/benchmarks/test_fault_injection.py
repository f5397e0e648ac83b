"""The harness that kills runs: it finds nothing, and where something is lost, that."""

import json
import random
import subprocess
import sys

import pytest

from analysis.diverge.records import differences
from benchmarks.fault_injection import damage
from helpers.entry_points import ROOT
from training.checksums import checked_files, write_checksums

CONFIG = (
    "--config=configs/plain_text.py:rnn",
    "--config.data.tokenizer=byte",
    "--config.data.segment_length=8",
    "--config.data.batch_size=4",
    "--config.model.width=8",
    "--config.model.embedding_width=8",
    "--config.model.attention_width=8",
    "--config.eval.segment_length=64",
    "--config.optim.ema_decay=0.9",
    "--config.steps=16",
    "--config.every.log=3",
    "--config.every.eval=8",
    "--config.every.checkpoint=5",
)


@pytest.mark.parametrize(
    ("kills", "kind"), [(1, "kill"), pytest.param(3, "mixed", marks=pytest.mark.slow)]
)
def test_kills_lose_nothing(tmp_path, kills, kind):
    for split in ("train", "valid", "test"):
        text = " ".join(random.Random(split).choices("abcdefgh", k=3000))
        (tmp_path / f"{split}.txt").write_text(f"{text}\n")
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "benchmarks.fault_injection",
                f"--kills={kills}",
                f"--signal={kind}",
            ),
            *CONFIG,
            f"--config.data.source_dir={tmp_path}",
            f"--config.data.dir={tmp_path / 'data'}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["kills"], told["differences"]) == (kills, 0)
    assert told["restarts"] >= kills


def test_each_harm_changes_one_file(tmp_path):
    folder = tmp_path / "1"
    (folder / "content").mkdir(parents=True)
    for name in "ab":
        (folder / "content" / name).write_bytes(bytes(range(100)))
    write_checksums(folder)
    before = {path: path.read_bytes() for path in checked_files(folder)}
    for harm in ("flip", "truncate", "remove"):
        for path, content in before.items():
            path.write_bytes(content)
        damage(folder, harm, random.Random(0))
        now = {path: path.read_bytes() for path in checked_files(folder)}
        changed = [path for path in before if now.get(path) != before[path]]
        assert len(changed) == 1, harm


def run_directory(folder, value):
    folder.mkdir()
    line = {"step": 1, "split": "train", "loss": value, "seconds": random.random()}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_two_runs_are_the_same_but_for_their_clocks(tmp_path):
    one, same = (run_directory(tmp_path / name, 0.5) for name in ("one", "same"))
    other = run_directory(tmp_path / "other", 0.5000001)
    assert differences(one, same) == []
    assert differences(one, other) == ["metrics.jsonl: (1, 'train', 'loss') differs"]
