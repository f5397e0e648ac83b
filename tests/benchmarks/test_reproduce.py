"""A rung is climbed in slots of time, over programs that only behave like ours."""

import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import reproduce
from benchmarks.reproduce import RUNGS

ROOT = Path(__file__).parents[2]
STEPS = 20
TRAIN = f"""
import json, pathlib, signal, sys, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
flags = dict(f[2:].split("=", 1) for f in sys.argv[1:] if "=" in f)
run = pathlib.Path(flags["workdir"])
run.mkdir(exist_ok=True)
(run / "flags").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if "wrong" in flags["config"]:
    sys.exit("error: no")
metrics = run / "metrics.jsonl"
done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
for step in range(done + 1, {STEPS} + 1):
    time.sleep(0.05)
    with metrics.open("a") as file:
        file.write(json.dumps({{"step": step, "split": "train", "loss": 0.5}}) + "\\n")
    if stopped:
        sys.exit(75)
"""
EVAL = """
import pathlib, sys
run = pathlib.Path(sys.argv[1].split("=")[1])
(run / "eval").mkdir()
(run / "eval" / "test-20.json").write_text(" ".join(sys.argv[1:]))
"""
REPORT = """
import pathlib, sys
for path in sys.argv[2].split("=")[1].split(","):
    pathlib.Path(path).write_text(sys.argv[1])
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """The exit code of a call, with programs of ours that take no time."""
    for name, text in {"train": TRAIN, "eval": EVAL, "report": REPORT}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "MINUTE", 0.1)

    def run(*flags):
        arguments = [*flags, f"--runs={tmp_path / 'runs'}"]
        behind = [flag for flag in flags if flag.startswith("--config")]
        arguments = [flag for flag in arguments if flag not in behind]
        monkeypatch.setattr(
            reproduce.sys, "argv", ["ladder", *arguments, "--", *behind]
        )
        return reproduce.main()

    return run


def steps(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_a_rung_goes_on_where_a_slot_ended(call, tmp_path, capsys):
    rung = tmp_path / "runs" / "cldr"
    assert call("cldr", "--slot=0.6", "--only=rnn,transformer") == 75
    assert 0 < len(steps(rung / "rnn")) < STEPS
    assert not (rung / "transformer").exists()
    assert "step" in capsys.readouterr().out
    assert call("cldr", "--only=rnn,transformer", "--config.steps=20") == 0
    for name in ("rnn", "transformer"):
        assert steps(rung / name) == list(range(1, STEPS + 1))
        assert (rung / name / "eval" / "test-20.json").exists()
    last = (rung / "rnn" / "flags").read_text().splitlines()[-1]
    assert "--config=configs/cldr.py:rnn" in last
    assert last.endswith("--config.steps=20")
    assert f"{rung / 'rnn'},{rung / 'transformer'}" in (rung / "report.md").read_text()


def test_what_is_done_is_not_done_again(call, tmp_path):
    for _ in range(2):
        assert call("cldr", "--only=rnn") == 0
    flags = tmp_path / "runs" / "cldr" / "rnn" / "flags"
    assert len(flags.read_text().splitlines()) == 1


def test_seeds_are_runs_of_their_own(call, tmp_path):
    assert call("cldr", "--only=rnn", "--seeds=2") == 0
    folder = tmp_path / "runs" / "cldr"
    for seed in range(2):
        text = (folder / f"rnn-{seed}" / "flags").read_text()
        assert f"--config.seed={seed}" in text


def test_a_run_that_fails_ends_the_rung_with_its_code(call, capsys):
    assert call("cldr", "--only=rnn", "--config=wrong") == 1
    assert "train.py ended with 1; see " in capsys.readouterr().out


def test_a_rung_of_a_corpus_is_told_where_it_lies(call, tmp_path):
    assert call("multi30k", "--only=rnn", f"--corpora={tmp_path}") == 0
    run = tmp_path / "runs" / "multi30k" / "rnn"
    source = f"--config.data.source_dir={tmp_path / 'multi30k'}"
    assert source in (run / "flags").read_text()
    scoring = (run / "eval" / "test-20.json").read_text()
    flags = "--split=test --decode.method=beam --decode.beam_size=5"
    assert scoring.endswith(f"{flags} --data.source_dir={tmp_path / 'multi30k'}")


def test_folders_of_the_data_are_those_of_the_caller(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options, _ = reproduce.parse(["cldr", "--data=prepared"])
    flags = [*reproduce.training_flags(RUNGS["cldr"], "rnn", 0, options)]
    assert flags[-1] == f"--config.data.dir={tmp_path / 'prepared'}"
    assert reproduce.data_flags(flags) == [f"--data.dir={tmp_path / 'prepared'}"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "invalid choice: 'nowhere'"),
        (["multi30k"], "--corpora=DIR is missing"),
        (["cldr", "--only=bert"], "there are rnn, transformer, transformer_xl"),
        (["cldr", "--seeds=0"], "at least 1"),
    ],
)
def test_a_wrong_call_is_refused_in_words(flags, message, capsys):
    with pytest.raises(SystemExit) as ending:
        reproduce.parse(flags)
    assert ending.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", RUNGS)
def test_the_runs_of_a_rung_are_configs_that_there_are(name):
    module = importlib.import_module(f"configs.{RUNGS[name].config.replace('/', '.')}")
    for model in RUNGS[name].models:
        assert module.get_config(model).is_locked


def test_the_script_has_slots_of_ten_minutes_at_most():
    found = subprocess.run(
        ["sh", "scripts/reproduce.sh", "cldr", "--only=rnn"],
        cwd=ROOT,
        env=os.environ | {"PYTHON": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "-m benchmarks.reproduce cldr --slot=540 --only=rnn\n"
