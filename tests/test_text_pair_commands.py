"""The commands for runs of text pairs, from a table to a report and its tests."""

import json

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from experiment.train import train
from helpers.entry_points import assert_refused, run
from helpers.pair_runs import METRICS, pairs_config, rows, write_sums


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_sums(folder)
    cfg = pairs_config(folder, "rnn", steps=30, **{"every.eval": 30, "every.log": 10})
    cfg.every.checkpoint = 30
    cfg.model.initialization = "uniform"  # compiles faster than orthogonal matrices
    train(cfg, str(folder / "run"))
    done = run("eval.py", f"--workdir={folder / 'run'}", "--split=test")
    assert done.returncode == 0, done.stderr.decode()
    return folder, done.stdout.decode()


def read_card(folder):
    [path] = (folder / "run" / "eval").glob("test-*.json")
    return json.loads(path.read_text())


def test_a_card_agrees_with_the_libraries_on_the_kept_files(trained):
    folder, printed = trained
    card, samples = read_card(folder), folder / "run" / "samples"
    assert list(card["scores"]) == [*METRICS, "loss"]
    hypotheses, first = (
        (samples / f"test-30.{kind}.txt").read_text().splitlines()
        for kind in ("hypotheses", "references")
    )
    lines = (samples / "test-30.jsonl").read_text().splitlines()
    others = [json.loads(line)["further_references"][0] for line in lines]
    bleu = sacrebleu.corpus_bleu(hypotheses, [first, others]).score
    assert card["scores"]["bleu"]["value"] == pytest.approx(bleu)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rouge = [
        scorer.score_multi(pair, text)["rougeL"].fmeasure
        for *pair, text in zip(first, others, hypotheses, strict=True)
    ]
    value = card["scores"]["rougeL"]["value"]
    assert value == pytest.approx(100 * sum(rouge) / len(rouge))
    assert card["protocol"]["references"] == 2
    for name in ("copy", "lead_10", "most_frequent_target", "nearest_neighbour"):
        assert card["baselines"][name].keys() == set(METRICS)
        assert f"baseline: {name}" in printed
    assert card["baselines"]["most_frequent_target"]["answer_accuracy"] == 100


def test_the_model_learns_the_equation_and_predicts_it(trained):
    folder, _ = trained
    assert read_card(folder)["scores"]["answer_accuracy"]["value"] == 100
    question = rows(1)[0].partition("\t")[0].encode()
    done = run("predict.py", f"--workdir={folder / 'run'}", given=question + b"\n\n")
    assert done.stdout.decode() == "+ number0 number1\n\n"


def test_the_report_and_the_tests_know_all_metrics(trained, tmp_path):
    folder, _ = trained
    output = tmp_path / "report.md"
    done = run("report.py", f"--runs={folder / 'run'}", f"--output={output}")
    assert done.returncode == 0, done.stderr.decode()
    report = output.read_text()
    for title in ("answers, %", "ROUGE-L", "first 10 words", "most frequent target"):
        assert title in report
    cards = f"--cards={folder / 'run'},{folder / 'run'}"
    done = run("analysis/significance.py", cards)
    assert done.returncode == 0, done.stderr.decode()
    tests = done.stdout.decode().partition(" minus ")[2]
    assert all(name in tests for name in METRICS)
    assert "not tested" not in tests


def test_scores_and_references_can_change_after_training(trained):
    folder, _ = trained
    flags = "--eval.metrics=('ter', 'chrf')", "--data.reference_columns=()"
    done = run("eval.py", f"--workdir={folder / 'run'}", "--split=validation", *flags)
    assert done.returncode == 0, done.stderr.decode()
    card = json.loads((folder / "run" / "eval" / "validation-30.json").read_text())
    assert list(card["scores"]) == ["ter", "chrf", "loss"]
    assert card["protocol"]["references"] == 1
    done = run("eval.py", f"--workdir={folder / 'run'}", "--eval.metrics=('blue',)")
    assert_refused(done, "Unknown metric 'blue'", "choose some of bleu")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--config.eval.metrics=('bleu','entity_f1')"],
            ["column 'entities'"],
        ),
        (["--config.data.source_column=text"], ["has the columns answer, equation"]),
        (["--config.data.reference_columns=('gold',)"], ["'gold'", "has the columns"]),
        (["--config.keep.metric=chrf"], ["choose one of bleu, exact_match, loss"]),
    ],
)
def test_what_does_not_fit_ends_in_one_line(trained, tmp_path, flags, words):
    folder, _ = trained
    done = run(
        "train.py",
        "--config=configs/pairs/text_pairs.py:transformer",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.source_dir={folder}",
        f"--config.data.dir={tmp_path / 'data'}",
        "--config.data.tokenizer=word",
        "--config.data.source_column=question",
        "--config.data.target_column=equation",
        "--config.eval.metrics=('bleu','exact_match')",
        *flags,
    )
    assert_refused(done, *words)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ("ptb.py:rnn", "eval.metrics", "('bleu',)"),
        ("multi30k.py:rnn", "data.source_column", "'en'"),
        ("ptb.py:rnn", "data.target_column", "'text'"),
    ],
)
def test_other_tasks_refuse_the_keys_of_text_pairs(tmp_path, config, key, value):
    done = run(
        "train.py",
        f"--config=configs/{config}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.{key}={value if value[0] == '(' else value[1:-1]}",
    )
    assert_refused(done, f"{key}={value}", "task='text_to_text'")
