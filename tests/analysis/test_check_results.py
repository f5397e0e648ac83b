"""Scores recomputed from kept runs: equal, or not where what is kept was changed."""

import contextlib
import io
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from analysis.check_results import KeptCard, main, score_labels, score_losses
from analysis.publish_results import keep
from experiment.inference import evaluate
from experiment.restore import open_run
from experiment.train import train
from helpers.entry_points import ROOT, assert_refused, run
from helpers.labeled_runs import labeled_config, write_colored
from helpers.pair_runs import pairs_config, write_sums
from helpers.tagged_runs import tagged_config, write_tagged
from tasks.understanding.label_metrics import score_grades
from tasks.understanding.semeval import score_relations

STEPS = {"steps": 12, "every.eval": 0, "every.log": 12, "every.checkpoint": 0}
INTENTS = {"data.label_column": "intent", "head.pooling": "attention"}
CONFIGS = {
    "labeled_text": (write_colored, labeled_config, {}),
    "tagged_text": (write_tagged, tagged_config, INTENTS),
    "text_pairs": (write_sums, pairs_config, {}),
}
CARD = "eval/test-12"


def add_intents(folder):
    """Gives each sentence the intent "go" or "stay"."""
    for path in folder.glob("*.conll"):
        blocks = enumerate(path.read_text().split("\n\n"))
        path.write_text(
            "\n\n".join(f"# intent = {('go', 'stay')[i % 2]}\n{x}" for i, x in blocks)
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with corpora, and a kept run of each."""
    folder = tmp_path_factory.mktemp("made")
    for name, (write, configure, changes) in CONFIGS.items():
        corpus = folder / "corpora" / name
        write(corpus)
        add_intents(corpus)
        cfg = configure(corpus, "transformer", **STEPS, **changes)
        train(cfg, folder / name)
        evaluate(open_run(folder / name, "last"), "test")
        keep(str(folder / name), folder / "results")
    return folder


@pytest.fixture
def results(made, tmp_path):
    """A copy of the kept runs that a test may change."""
    return shutil.copytree(made / "results", tmp_path / "results")


def places_of(made, results, corpora="corpora"):
    """Returns the values of the flags."""
    found = {"corpora": made / corpora, "results": results}
    return {k: str(x) for k, x in {**found, "prepared": made / "prepared"}.items()}


def check(*places, **options):
    """Does in this process what the command does; returns exit code and lines."""
    flags.FLAGS.mark_as_parsed()
    output = io.StringIO()
    with (
        flagsaver.flagsaver(**places_of(*places, **options)),
        contextlib.redirect_stdout(output),
    ):
        code = main()
    return code, output.getvalue().splitlines()


def names(lines, verdict):
    """Returns the recomputed scores with a verdict, by run."""
    found = {}
    for line in lines:
        row = re.search(r"/(\w+) test-12  (\w+) .*  (\w+)$", line)
        if row and row[3] == verdict:
            found.setdefault(row[1], set()).add(row[2])
    return found


def test_scores_of_a_run_equal_the_recomputed_ones(made, results):
    places = places_of(made, results).items()
    done = run("analysis/check_results.py", *(f"--{k}={x}" for k, x in places))
    code, lines = done.returncode, done.stdout.decode().splitlines()
    found = names(lines, "equal")
    assert found["labeled_text"] == {"accuracy", "macro_f1", "matthews", "loss"}
    kinds = "f1", "precision", "recall"
    entities = {f"{strict}{kind}" for strict in ("", "strict_") for kind in kinds}
    accuracies = {f"{kind}_accuracy" for kind in ("token", "sentence", "intent")}
    assert found["tagged_text"] == {"loss", *entities, *accuracies}
    assert found["text_pairs"] == {"bleu", "rougeL", "exact_match", "loss"}
    assert [line for line in lines if "not checked: " in line] == [
        f"{results}/text_pairs test-12  not checked: answer_accuracy (it is not "
        "recomputed here)"
    ]
    assert lines[-1] == "18 equal, 1 not checked"
    assert code == 0


@pytest.mark.parametrize(
    ("name", "line", "score"),
    [
        ("labeled_text", "none", "accuracy"),
        ("tagged_text", None, "token_accuracy"),
        ("text_pairs", "none of it", "exact_match"),
    ],
)
def test_a_changed_prediction_is_detected(made, results, name, line, score):
    path = results / name / "samples" / "test-12.hypotheses.txt"
    lines = path.read_text().splitlines()
    changed = [line or re.sub(r"\S+", "B-CITY", row) for row in lines]
    path.write_text("".join(f"{row}\n" for row in changed))
    code, lines = check(made, results)
    assert score in names(lines, "DIFFERENT")[name]
    assert len(names(lines, "DIFFERENT")) == code == 1


def test_a_prediction_too_few_is_refused(made, results):
    path = results / "labeled_text" / "samples" / "test-12.hypotheses.txt"
    path.write_text("red\n")
    with pytest.raises(SystemExit) as ended:
        check(made, results)
    assert ended.value.code == 2


def test_what_is_missing_is_told_in_one_line_each(made, results):
    shutil.rmtree(results / "text_pairs")
    (results / "tagged_text" / "samples" / "test-12.intents.txt").unlink()
    (results / "labeled_text" / f"{CARD}.npz").unlink()
    code, lines = check(made, results)
    told = [line for line in lines if "not checked: " in line]
    assert re.search(r"not checked: loss \(no losses are kept\)", told[0])
    assert re.search(r"not checked: .*intent_accuracy \(no intents are kept\)", told[1])
    assert len(told) == 2
    assert code == 0


def test_runs_of_a_missing_corpus_are_left_out(made, results):
    code, lines = check(made, results, corpora="nowhere")
    assert {tuple(found) for found in names(lines, "equal").values()} == {("loss",)}
    assert sum("nowhere/" in line for line in lines) == 3
    assert code == 0


def test_scores_of_another_version_of_a_corpus_are_not_compared(made, results):
    shutil.copytree(made / "corpora" / "labeled_text", made / "other" / "labeled_text")
    with (made / "other" / "labeled_text" / "test.tsv").open("a") as file:
        file.write("a red b\tred\n")
    code, lines = check(made, results, corpora="other")
    assert any("the run is of labeled_text/" in line for line in lines)
    assert code == 0


def test_a_folder_without_runs_is_refused(tmp_path):
    done = run("analysis/check_results.py", f"--results={tmp_path}")
    assert_refused(done, "contains no kept runs")


def test_losses_of_the_kept_runs_of_this_project_are_those_of_their_cards():
    paths = list((ROOT / "docs" / "results").rglob("eval/*.json"))
    assert len(paths) > 30
    for path in paths:
        kept = KeptCard(path)
        found = {k: x for k, x in score_losses(kept) if k in kept.values}
        assert "loss" in found
        assert found == pytest.approx({k: kept.values[k] for k in found}, rel=1e-6)


def recomputed(actual, found, *, regression=False):
    """Returns the scores of labels or grades, without a run."""
    cfg = SimpleNamespace(
        data=SimpleNamespace(label_column="label"),
        head=SimpleNamespace(regression=regression),
    )
    kept = SimpleNamespace(
        cfg=cfg,
        protocol={"micro_f1": "without Other"},
        open=lambda: None,
        column=lambda table, name: actual,
        predictions=lambda references: found,
    )
    return dict(score_labels(kept))


def test_scores_of_relations_are_those_of_the_task():
    relations = [f"{r}({d})" for r in ("A-B", "C-D") for d in ("e1,e2", "e2,e1")]
    actual, found = np.random.default_rng(0).choice([*relations, "Other"], (2, 60))
    scores = score_relations(actual.tolist(), found.tolist(), official=True)
    values = {name: score["value"] for name, score in scores.items()}
    others = recomputed(actual.tolist(), found.tolist())
    assert values == pytest.approx({name: others[name] for name in values})


def test_scores_of_grades_are_those_of_the_task():
    grades = np.random.default_rng(0).integers(1, 6, (2, 40)).astype(float)
    values = {k: score["value"] for k, score in score_grades(*grades).items()}
    assert recomputed(*grades.astype(str).tolist(), regression=True) == pytest.approx(
        values
    )
