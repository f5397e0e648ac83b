"""Training that is called several times in one process, as notebooks do."""

import os
import signal
import threading

import pytest
from absl import flags

from analysis.diverge.records import differences
from experiment.train import train
from helpers.entry_points import run
from helpers.small_runs import config
from helpers.text_runs import text_config
from training.loop import ExitStatus

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
CHANGES = {
    "data.name": "parallel_text/en-de",
    "data.vocab_size": 60,
    "data.tokens_per_batch": 64,
    "decode.max_length": 4,
    "model.dropout": 0.1,
    "model.width": 8,
    "every.log": 1,
    "every.eval": 2,
    "every.checkpoint": 2,
}


def pairs_config(tmp_path):
    """Returns the config of a small run on a corpus of files."""
    (tmp_path / "mine").mkdir()
    for split, size in {"train": 40, "valid": 4, "test": 4}.items():
        lines = [f"{WORDS[k % 10]} {WORDS[k % 7]}\n" for k in range(size)]
        (tmp_path / f"mine/{split}.en").write_text("".join(lines))
        (tmp_path / f"mine/{split}.de").write_text("".join(lines).upper())
    changes = {**CHANGES, "data.source_dir": str(tmp_path / "mine")}
    return config("cldr", "rnn", tmp_path / "data", steps=4, **changes)


def lines_config(tmp_path):
    """Returns the config of a language model, which compiles faster."""
    changes = {"model.layers": 1, "model.dropout": 0.1}
    every = {"every.eval": 2, "every.checkpoint": 2}
    return text_config(tmp_path, steps=4, **changes, **every)


@pytest.mark.parametrize(
    ("make_config", "names"),
    [
        # Resumed runs are compared to the bit with others in test_resume.py.
        pytest.param(lines_config, ["first"], marks=pytest.mark.slow),
        pytest.param(pairs_config, ["first", "second"], marks=pytest.mark.slow),
    ],
)
def test_training_again_in_a_process_or_a_thread_equals_training_in_another_process(
    tmp_path, make_config, names
):
    cfg = make_config(tmp_path)
    handlers = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    is_parsed = flags.FLAGS.is_parsed()
    for name in names:
        assert train(cfg, str(tmp_path / name)) is ExitStatus.FINISHED
        if name == "first":
            files = len(os.listdir("/proc/self/fd"))
    statuses = []
    thread = threading.Thread(
        target=lambda: statuses.append(train(cfg, str(tmp_path / "thread")))
    )
    thread.start()
    thread.join()
    assert len(os.listdir("/proc/self/fd")) <= files
    assert statuses == [ExitStatus.FINISHED]
    now = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    assert now == handlers
    assert flags.FLAGS.is_parsed() == is_parsed

    written = tmp_path / "experiment.py"
    written.write_text(
        "import json\nfrom configs import base\n\n\ndef get_config(name):\n"
        "    cfg = base.get_config(name)\n"
        f"    cfg.update(json.loads({cfg.to_json_best_effort()!r}))\n    return cfg\n"
    )
    name = cfg.model.name
    flags_given = (f"--config={written}:{name}", f"--workdir={tmp_path / 'process'}")
    done = run("train.py", *flags_given)
    assert done.returncode == 0, done.stderr.decode()
    for name in (*names[1:], "thread", "process"):
        assert differences(tmp_path / "first", tmp_path / name) == []
