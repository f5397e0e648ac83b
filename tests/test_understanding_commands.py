"""The commands for runs of encoders: what each prints, and what it refuses."""

import json
import re
import shutil

import pytest

from experiment.build import open_dataset
from experiment.train import train
from helpers.entry_points import assert_refused, run
from helpers.labeled_runs import labeled_config, write_colored
from training.run_dir import RunDirectory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    write_colored(folder)
    cfg = labeled_config(folder, **{"data.buckets": 2})
    cfg.steps, cfg.every.eval, cfg.every.log = 4, 4, 2
    train(cfg, str(folder / "run"))
    return folder / "run", cfg


def test_predict_writes_labels_and_their_probabilities(trained):
    flags = f"--workdir={trained[0]}", "--scores", "--n_best=2"
    done = run("predict.py", *flags, given=b"a red b\n\ngreen\n")
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().split("\n")
    assert lines[2:4] == ["", ""]
    scores = [float(line.split("\t")[0]) for line in lines[:2]]
    assert 1 > scores[0] >= scores[1] > 0


@pytest.mark.parametrize("flag", ["score", "tokens", "prefix", "documents", "ensemble"])
def test_predict_refuses_flags_of_models_that_write_texts(trained, flag):
    workdir = trained[0]
    flags = [f"--{flag}"] if flag != "ensemble" else []
    both = f"{workdir},{workdir}" if flag == "ensemble" else workdir
    done = run("predict.py", f"--workdir={both}", *flags, given=b"red\n")
    assert_refused(done, flag, "task='classification'")


def test_eval_prints_scores_and_baselines_and_the_report_has_them(trained, tmp_path):
    done = run("eval.py", f"--workdir={trained[0]}")
    assert done.returncode == 0, done.stderr.decode()
    assert "baseline: naive_bayes" in done.stdout.decode()
    assert "plots/attention-test-4.png" in done.stdout.decode()
    output = tmp_path / "report.json"
    done = run("report.py", f"--runs={trained[0]}", f"--output={output}")
    assert "examples/s" in done.stdout.decode()
    [found] = json.loads(output.read_text())["runs"]
    assert [row["class"] for row in found["classes"]] == ["blue", "green", "red"]


def test_the_log_counts_examples(trained):
    lines = (trained[0] / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["examples_per_second"] > 0


def test_attention_becomes_a_page(trained, tmp_path):
    flags = f"--workdir={trained[0]}", f"--output={tmp_path}", "--nopictures"
    done = run("analysis/attention/__main__.py", *flags, given=b"a red b\n")
    assert done.returncode == 0, done.stderr.decode()
    [text] = json.loads((tmp_path / "attention.json").read_text())["texts"]
    assert text["title"].startswith("a red b → ")
    kinds = [one["kind"] for one in text["maps"]]
    assert kinds == ["self", "pooling"]


def test_knockouts_become_a_page(trained, tmp_path):
    flags = f"--workdir={trained[0]}", f"--output={tmp_path}", "--kinds=alignment"
    done = run("analysis/knockout/__main__.py", *flags)
    assert done.returncode == 0, done.stderr.decode()
    assert "encoder/attention/alignment/uniform" in done.stdout.decode()
    found = json.loads((tmp_path / "knockout.json").read_text())
    names = [one["name"].rpartition("/")[2] for one in found["knockouts"]]
    assert sorted(names) == ["last", "shifted", "uniform"]
    run("eval.py", f"--workdir={trained[0]}")
    card = json.loads((trained[0] / "eval/test-4.json").read_text())
    for name in ("loss", "accuracy"):
        assert found["whole"][name] == card["scores"][name]["value"]
    assert "Knockouts of rnn at step 4" in (tmp_path / "knockout.html").read_text()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--kinds=heads", "this rnn has no heads to switch off"),
        ("--names=encoder/layers_9", "this rnn has no such part"),
        ("--checkpoint=3", "3"),
    ],
)
def test_knockouts_of_what_there_is_not_are_refused(trained, tmp_path, flag, words):
    flags = f"--workdir={trained[0]}", f"--output={tmp_path}", flag
    assert_refused(run("analysis/knockout/__main__.py", *flags), words)


def test_analyses_of_texts_refuse_a_run_of_labels(trained, tmp_path):
    flags = f"--runs={trained[0]}", f"--output={tmp_path}"
    done = run("analysis/effective_context/__main__.py", *flags)
    assert_refused(done, "task classification", "language models only")


def test_runs_are_compared_bit_by_bit(trained):
    done = run("analysis/diverge/__main__.py", trained[0], trained[0])
    assert done.stdout.decode().splitlines()[-1].startswith("verdict: equal: ")


@pytest.mark.slow
def test_a_step_with_labels_is_explained_from_the_batch_that_was_kept(
    trained, tmp_path
):
    workdir, cfg = trained
    batch = open_dataset(cfg).train_batches()[3]
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    RunDirectory(copy).write_places(cfg.data)
    arrays = {f"4/{name}": value for name, value in batch.items()}
    RunDirectory(copy).write_arrays("replay/steps-4-4.npz", arrays)
    done = run("analysis/explain/__main__.py", f"--workdir={copy}", "--step=4")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert text.startswith(f"step 4 of {copy}: finite\n  loss 1.")
    assert "batch: kept in replay/" in text
    assert re.search(r"row \d+, text: '\w", text)
