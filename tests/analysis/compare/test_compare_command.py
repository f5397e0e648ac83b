"""A whole comparison: two architectures, stopped once and resumed, and its page."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from analysis.report.content import Content
from helpers.entry_points import ROOT, assert_refused, run

MAIN = "analysis/compare/__main__.py"
MODELS = ("rnn", "transformer")
RATES = {"rnn": 3e-3, "transformer": 1e-3}
BUDGET = 20_000
FOLDER = "one & <two>"  # to be escaped, and quoted in links


@pytest.fixture(
    scope="module", params=["at once", pytest.param("stopped", marks=pytest.mark.slow)]
)
def compared(tmp_path_factory, request):
    """Folder of a comparison, perhaps one that was stopped by a signal and resumed.

    Its vocabulary is far smaller than data.vocab_size.
    """
    folder = tmp_path_factory.mktemp("compare")
    workdir, text = folder / FOLDER, folder / "text"
    text.mkdir()
    rng = random.Random(0)
    for split, size in {"train": 600, "valid": 60, "test": 100}.items():
        lines = (
            " ".join(rng.choices(["one", "two", "three"], k=8)) for _ in range(size)
        )
        (text / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    # The search and the runs of fresh seeds are one program, which is compiled once.
    space = folder / "space.py"
    space.write_text(
        "from sweeps.search_space import *\n\n\n"
        "def get_space(model):\n"
        f"    rate = {RATES}[model]\n"
        "    return Space(product(grid({'optim.lr': [rate]}), seeds(2)))\n"
    )
    sizes = {
        **{"data.source_dir": text, "data.dir": folder / "data"},
        **{"data.tokenizer": "char", "data.batch_size": 4, "data.segment_length": 16},
        **{"steps": 4, "every.log": 2, "every.eval": 4, "every.checkpoint": 2},
        **{"model.layers": 1, "optim.name": "sgd", "eval.batch_size": 8},
    }
    flags = [
        *("--config=configs/plain_text.py", f"--models={','.join(MODELS)}"),
        *("--trials=2", "--seeds=2", "--population=2", f"--budget={BUDGET}"),
        f"--space={space}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in sizes.items()),
    ]
    if request.param == "stopped":
        stop_soon(workdir, flags)
    done = run(MAIN, *flags)
    assert done.returncode == 0, done.stderr.decode()
    return workdir, flags


def test_the_plan_is_printed_and_nothing_is_trained(compared, tmp_path):
    _, flags = compared
    workdir = tmp_path / "new"
    done = run(MAIN, *flags, "--dry_run", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr.decode()
    out = done.stdout.decode()
    assert f"budget {BUDGET:,} parameters" in out
    assert "    0  seed=0" in out
    total = r"4 trials, and 4 runs to score on test, [\d.]+e\+\d+ FLOPs"
    assert re.fullmatch(total, out.splitlines()[-1])
    assert not workdir.exists()


def test_a_split_with_too_few_blocks_is_refused_before_any_training(compared, tmp_path):
    _, flags = compared
    for split, size in {"train": 600, "valid": 60, "test": 9}.items():
        (tmp_path / f"{split}.txt").write_text(size * "one two three\n")
    workdir = tmp_path / "new"
    own = f"--config.data.source_dir={tmp_path}", f"--config.data.dir={tmp_path / 'd'}"
    for split, words in {
        "test": "1 blocks of 128 tokens, too few",
        "dev": "the splits",
    }.items():
        done = run(MAIN, *flags, *own, f"--workdir={workdir}", f"--split={split}")
        assert_refused(done, f"--split={split}", words)
    assert not workdir.exists()


def test_an_open_verdict_names_the_smallest_difference_of_interest(compared, tmp_path):
    workdir, _ = compared
    output = f"--output={tmp_path / 'page.md'}"
    done = run(MAIN, f"--workdir={workdir}", output, "--smallest=0.1234")
    assert done.returncode == 0, done.stderr.decode()
    assert "cannot be told apart" in done.stdout.decode()
    assert "0.1234 nats per token" in done.stdout.decode()


def stop_soon(workdir, flags):
    """Starts a comparison and stops it by a signal in its first run."""
    command = [sys.executable, "-m", "analysis.compare", *flags]
    first = workdir / str(BUDGET) / "search" / "rnn" / "trials" / "0000"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (first / "metrics.jsonl").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 75


def trials(workdir, kind, model):
    return sorted((workdir / str(BUDGET) / kind / model / "trials").iterdir())


@pytest.mark.parametrize("model", MODELS)
def test_every_run_is_an_ordinary_one_at_the_budget(compared, model):
    workdir, _ = compared
    for kind in ("search", "final"):
        for path in trials(workdir, kind, model):
            lines = (path / "metrics.jsonl").read_text().splitlines()
            steps = [json.loads(line)["step"] for line in lines if '"train"' in line]
            assert steps == [2, 4]  # none twice, though it was stopped
            about = json.loads((path / "about.json").read_text())
            assert about["parameters"] == pytest.approx(BUDGET, rel=0.01)
    sweeps = [str(workdir / str(BUDGET) / "final" / name) for name in MODELS]
    assert len(Content.from_paths(sweeps, is_tested=False).runs) == 4


@pytest.mark.parametrize("model", MODELS)
def test_only_the_best_point_with_fresh_seeds_is_scored_on_test(compared, model):
    workdir, _ = compared
    searched = [
        json.loads((p / "config.json").read_text())
        for p in trials(workdir, "search", model)
    ]
    rows = (workdir / str(BUDGET) / "search" / model / "trials.jsonl").read_text()
    best = min(map(json.loads, rows.splitlines()), key=lambda row: row["value"])
    for path in trials(workdir, "search", model):
        assert not (path / "eval").exists()
    seeds = []
    for path in trials(workdir, "final", model):
        config = json.loads((path / "config.json").read_text())
        assert config["optim"]["lr"] == best["point"]["optim.lr"] == RATES[model]
        seeds.append(config["seed"])
        assert [p.stem for p in (path / "eval").glob("*.json")] == ["test-4"]
    assert seeds == [2, 3]
    assert not set(seeds) & {config["seed"] for config in searched}


def test_the_page_links_every_run_and_loads_nothing(compared):
    workdir, _ = compared
    page = (workdir / "report.html").read_text(encoding="utf8")
    assert "://" not in page
    assert "<two>" not in page
    tree = ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    assert not {"script", "link", "img", "iframe"} & {one.tag for one in tree.iter()}
    links = {unquote(one.get("href")) for one in tree.iter("a")}
    runs = [
        os.path.relpath(path, workdir)
        for kind in ("search", "final")
        for model in MODELS
        for path in trials(workdir, kind, model)
    ]
    assert set(runs) <= links
    assert all((workdir / link).exists() for link in links)


def test_the_page_is_rebuilt_from_finished_runs_alone(compared, tmp_path):
    workdir, _ = compared
    cards = list(workdir.rglob("eval/*.json"))
    before = [card.stat().st_mtime_ns for card in cards]
    outputs = [tmp_path / f"page.{kind}" for kind in ("html", "md", "json")]
    flag = f"--output={','.join(map(str, outputs))}"
    done = run(MAIN, f"--workdir={workdir}", flag)
    assert done.returncode == 0, done.stderr.decode()
    assert [card.stat().st_mtime_ns for card in cards] == before
    [one] = json.loads(outputs[2].read_text())["comparisons"]
    assert set(one["budgets"][0]["models"]) == set(MODELS)
    for model in one["budgets"][0]["models"].values():
        assert len(model["trials"]) == len(model["runs"]) == 2
    assert "# rnn, transformer on plain_text" in outputs[1].read_text()


def test_other_arguments_are_refused_for_the_same_folder(compared):
    _, flags = compared
    done = run(MAIN, *flags, "--seeds=3")
    assert_refused(done, "holds another comparison", "seeds is 2 there and 3 here")


def test_a_folder_without_a_comparison_is_refused(tmp_path):
    done = run(MAIN, f"--workdir={tmp_path}")
    assert_refused(done, "is not a comparison")
    done = run(MAIN)
    assert_refused(done, "--config=FILE, or --workdir=DIR")
