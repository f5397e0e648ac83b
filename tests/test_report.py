"""The report, on run directories made of a few small files."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis.comparison import Comparison, spread
from analysis.curves import learning_curves, ticks
from analysis.report_page import render
from analysis.runs import read_run, read_runs
from analysis.score_table import duration, number, plain_table, score_rows
from errors import UserError

ROOT = Path(__file__).parent.parent

SAMPLES = [
    {"source": "4 o'clock", "reference": "4 Uhr", "hypothesis": "4 Uhr"},
    {"source": "5 o'clock", "reference": "5 Uhr", "hypothesis": "6 Uhr"},
    {"source": "6 o'clock", "reference": "6 Uhr", "hypothesis": "6 Uhr"},
]
TRANSLATION = {
    "bleu": {"value": 91.26, "low": 90.14, "high": 92.36},
    "chrf": {"value": 95.5},
    "exact_match": {"value": 80.0},
    "loss": {"value": 0.12345},
}
TEXT = {
    "loss": {"value": 4.5},
    "perplexity": {"value": 90.017},
    "word_perplexity": {"value": 130.5},
    "bits_per_byte": {"value": 1.4321},
}
FLOORS = {
    "unigram": {"loss": 3.7064},
    "copy": {"bleu": 13.7, "exact_match": 3.2},
    "nearest_neighbour": {"bleu": 31.9, "exact_match": 0.0},
}
ATTENTION = {
    "source": ["4", "o'clock", "<eos>"],
    "target": ["4", "<eos>"],
    "weights": [[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]],
    "layer": "decoder/layers_1",
    "layers": 2,
    "heads": 4,
}
METRICS = [
    {"step": 1, "split": "train", "loss": 7.0, "tokens_per_second": 9.0, "seconds": 10},
    {"step": 2, "split": "train", "loss": 6.0, "tokens_per_second": 50, "seconds": 20},
    {"step": 2, "split": "validation", "loss": 5.5, "bleu": 2.5},
    {"step": 3, "split": "train", "loss": 5.0, "tokens_per_second": 70, "seconds": 30},
    {"step": 4, "split": "train", "loss": 4.0, "tokens_per_second": 60, "seconds": 75},
    {"step": 4, "split": "validation", "loss": 4.5, "bleu": None},
]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf8")


def make_run(
    path,
    model="rnn",
    *,
    task="translation",
    split="test",
    step=4,
    scores=TRANSLATION,
    floors=FLOORS,
    data="aaaa",
    samples=SAMPLES,
    metrics=METRICS,
    attention=ATTENTION,
    width=16,
    device="cpu",
):
    """A run directory as train.py, eval.py and the attention maps leave it."""
    config = {
        "seed": 3,
        "task": task,
        "steps": 4,
        "model": {"name": model, "width": width},
        "data": {"name": "toy/en-de", "dir": str(path)},
    }
    about = {
        "devices": [device],
        "parameters": 1234567,
        "corpus": {"name": "toy/en-de", "version": "1.0.0"},
        "commit": "0123456789abcdef+",
        "versions": {"jax": "0.10"},
    }
    card = {
        "split": split,
        "step": step,
        "scores": scores,
        "protocol": {"data": data, "search": "greedy"},
        "floors": floors,
    }
    write_json(path / "config.json", config)
    write_json(path / "about.json", about)
    write_json(path / "eval" / f"{split}-{step}.json", card)
    write_lines(path / "samples" / f"{split}-{step}.jsonl", samples)
    write_lines(path / "metrics.jsonl", metrics)
    if attention:
        write_json(path / "plots" / f"attention-{split}-{step}.json", attention)
    return str(path)


def compare(*paths):
    return Comparison.of(read_runs(paths))


@pytest.fixture
def two(tmp_path):
    """Two translators that differ in model, width and one translation."""
    other = [SAMPLES[0], {**SAMPLES[1], "hypothesis": "5 Uhr"}, SAMPLES[2]]
    return (
        make_run(tmp_path / "a", "rnn"),
        make_run(tmp_path / "b", "transformer", width=32, samples=other),
    )


def cells(comparison):
    return {row.label: row.cells for row in score_rows(comparison)}


def page_of(*paths):
    page = render(compare(*paths))
    return page, ElementTree.fromstring(page)


def text_of(element):
    return "".join(element.itertext())


def message_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def report(*flags, cwd=None):
    return subprocess.run(
        [sys.executable, str(ROOT / "report.py"), *flags],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_a_row_holds_what_was_scored_and_logged(two):
    row = cells(compare(*two))["rnn"]
    assert row == {
        "BLEU": "91.3",
        "95% interval": "90.1 to 92.4",
        "chrF": "95.5",
        "exact match, %": "80.0",
        "loss": "0.123",
        "parameters": "1,234,567",
        "tokens/s": "60",
        "training time": "1:15",
        "steps": "4",
        "scored step": "4",
    }


def test_floors_stand_under_the_runs_in_their_columns(two):
    rows = score_rows(compare(*two))
    labels = ["rnn", "transformer", "copy the source", "nearest neighbour", "unigram"]
    assert [row.label for row in rows] == labels
    assert [row.run for row in rows] == [0, 1, None, None, None]
    found = {row.label: row.cells for row in rows}
    assert found["copy the source"]["BLEU"] == "13.7"
    assert found["nearest neighbour"]["exact match, %"] == "0.0"
    assert found["unigram"]["loss"] == "3.706"
    assert not found["unigram"]["parameters"]


def test_a_floor_that_differs_names_its_runs(tmp_path):
    one = make_run(tmp_path / "a", floors={"unigram": {"loss": 3.0}})
    two = make_run(tmp_path / "b", "transformer", floors={"unigram": {"loss": 2.0}})
    found = cells(compare(one, two))
    assert found["unigram (rnn)"]["loss"] == "3.000"
    assert found["unigram (transformer)"]["loss"] == "2.000"


def test_language_models_have_columns_of_their_own(tmp_path):
    floors = {"unigram": {"loss": 6.5}}
    path = make_run(
        tmp_path / "a",
        task="language_modeling",
        scores=TEXT,
        floors=floors,
        samples=[],
        attention=None,
    )
    row = cells(compare(path))["rnn"]
    scores = ["loss", "perplexity", "word perplexity", "bits/byte"]
    assert [row[name] for name in scores] == ["4.500", "90.02", "130.50", "1.432"]
    assert "BLEU" not in row
    _, tree = page_of(path)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    assert headings == ["Runs", "Learning curves"]


def test_a_score_not_known_here_gets_a_column(tmp_path):
    path = make_run(tmp_path / "a", scores={**TRANSLATION, "comet_da": {"value": 0.5}})
    assert cells(compare(path))["rnn"]["comet da"] == "0.500"


def test_the_latest_scored_step_counts(tmp_path):
    make_run(tmp_path / "a", step=12, scores={"bleu": {"value": 2.0}})
    path = make_run(tmp_path / "a", step=9, scores={"bleu": {"value": 1.0}})
    assert cells(compare(path))["rnn"]["BLEU"] == "2.0"


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    path = make_run(tmp_path / "a")
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')
    assert read_run(path).steps == 4


def test_runs_of_one_model_are_told_apart_by_their_folders(tmp_path):
    paths = [make_run(tmp_path / name) for name in ("a", "b", "c/b")]
    labels = [run.label for run in read_runs(paths)]
    assert labels == ["rnn (a)", f"rnn ({paths[1]})", f"rnn ({paths[2]})"]


def test_differences_are_those_of_config_and_protocol_but_not_of_places(two):
    found = dict(compare(*two).differences())
    assert found == {"model.name": ["rnn", "transformer"], "model.width": ["16", "32"]}


def test_other_data_and_devices_and_an_early_end_are_warned_of(tmp_path):
    one = make_run(tmp_path / "a")
    short = METRICS[:3]
    two = make_run(tmp_path / "b", "transformer", data="bbbb", device="H200")
    three = make_run(tmp_path / "c", "transformer_xl", metrics=short)
    warnings = compare(one, two, three).warnings()
    assert len(warnings) == 3
    assert "aaaa: rnn, transformer_xl; bbbb: transformer" in warnings[0]
    assert "1 x cpu: rnn, transformer_xl; 1 x H200: transformer" in warnings[1]
    assert warnings[2] == "transformer_xl is not trained to the end: step 2 of 4"
    page, _ = page_of(one, two, three)
    assert page.count('class="warning"') == 3
    assert not compare(one).warnings()


def test_samples_prefer_disputed_sentences_and_keep_their_order(tmp_path):
    lines = [
        {"source": f"{i}", "reference": f"r{i}", "hypothesis": f"r{i}"}
        for i in range(40)
    ]
    other = [{**line, "hypothesis": "?"} for line in lines[:20]] + lines[20:]
    one = make_run(tmp_path / "a", samples=lines)
    two = make_run(tmp_path / "b", "transformer", samples=other)
    samples = compare(one, two).samples()
    assert len(samples) == 12
    disputed = [sample for sample in samples if len(set(sample.hypotheses)) == 2]
    assert len(disputed) == 8
    numbers = [int(sample.source) for sample in samples]
    assert numbers == sorted(set(numbers))


def test_only_sentences_that_all_runs_translated_are_shown(tmp_path):
    one = make_run(tmp_path / "a")
    two = make_run(tmp_path / "b", "transformer", samples=SAMPLES[1:])
    sources = [sample.source for sample in compare(one, two).samples()]
    assert sources == ["5 o'clock", "6 o'clock"]


def test_the_page_is_well_formed_and_has_every_part(two):
    _, tree = page_of(*two)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    parts = ["Runs", "What differs", "Learning curves", "Samples", "Attention"]
    assert headings == parts
    assert text_of(tree.find("body/h1")) == "translation, toy/en-de, test split"
    table = tree.find(".//table[@class='numbers']")
    rows = [[text_of(cell) for cell in row] for row in table.iter("tr")]
    assert rows[1][:3] == ["rnn", "91.3", "90.1 to 92.4"]
    assert {len(row) for row in rows} == {11}


def test_exact_translations_are_marked(two):
    _, tree = page_of(*two)
    table = tree.find(".//table[@class='samples beside']")
    marks = [
        ["exact" in text_of(cell) for cell in row.findall("td")]
        for row in table.findall("tbody/tr")
    ]
    both, one = [False, False, True, True], [False, False, False, True]
    assert marks == [both, one, both]


def test_the_page_loads_nothing(two):
    page, tree = page_of(*two)
    assert "://" not in page
    assert "url(" not in page
    assert "@import" not in page
    names = {element.tag for element in tree.iter()}
    assert not names & {"script", "link", "img", "iframe", "object", "embed"}
    assert not any({"src", "href"} & set(element.keys()) for element in tree.iter())


def test_text_of_all_kinds_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    path = make_run(
        tmp_path / "a",
        model=evil,
        data=evil,
        device=evil,
        scores={evil: {"value": 1.0}, **TRANSLATION},
        floors={evil: {"loss": 1.0}},
        samples=[{"source": evil, "reference": evil, "hypothesis": evil}],
        attention={**ATTENTION, "source": [evil] * 3, "layer": evil},
    )
    page, tree = page_of(path)
    assert "<script" not in page
    cells = tree.findall(".//table[@class='samples beside']/tbody/tr/td")
    assert [text_of(cell).endswith(evil) for cell in cells] == [True] * 3


def test_the_same_runs_give_the_same_bytes(two):
    assert render(compare(*two)) == render(compare(*two))


def test_a_run_keeps_its_colour_in_every_part(two):
    _, tree = page_of(*two)
    marks = [mark.get("class") for mark in tree.iter("svg")]
    marks = [mark.split()[1] for mark in marks if mark != "chart"]
    assert marks == ["run0", "run1"] * 6  # scores, runs, keys, legend, samples, maps
    curves = tree.findall(".//g")
    assert [curve.get("class").split()[1] for curve in curves] == ["run0", "run1"] * 2
    heat = tree.findall(".//table[@class]")
    kinds = [table.get("class") for table in heat if "heat" in table.get("class")]
    assert [kind.split()[1] for kind in kinds] == ["run0", "run1"]


def test_a_heat_map_has_a_cell_a_weight(two):
    _, tree = page_of(*two)
    strengths = [cell.get("style") for cell in tree.findall(".//td/i")]
    assert strengths[:6] == [
        f"opacity:{w:.2f}" for row in ATTENTION["weights"] for w in row
    ]
    assert len(strengths) == 2 * 6


def test_curves_leave_out_what_was_not_finite(two):
    runs = read_runs(two)
    chart = learning_curves(runs, "bleu", "BLEU")
    assert [len(curve.points) for curve in chart.curves] == [1, 1]
    loss = learning_curves(runs, "loss", "loss").curves[0].points
    assert loss[0][0] < loss[1][0]
    assert loss[0][1] < loss[1][1]  # falls: y grows downwards
    assert learning_curves(runs, "perplexity", "perplexity") is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 40, [0, 10, 20, 30, 40]),
        (3.65, 6.5, [3, 4, 5, 6, 7]),
        (0.0, 0.0, [0.0, 0.2]),
        (-1.5, 1.5, [-2, -1, 0, 1, 2]),
        (99.91, 99.99, [99.9, 99.92, 99.94, 99.96, 99.98, 100.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected, abs=1e-12)


def test_numbers_and_times_are_legible():
    assert [number(x, 2) for x in (0.005, 1234.5, 2.5e9)] == [
        "0.01",
        "1,234.50",
        "2.50e+09",
    ]
    assert [number(x, 1) for x in (float("nan"), float("inf"))] == ["nan", "inf"]
    assert [duration(x) for x in (6.6, 754, 3723)] == ["0:07", "12:34", "1:02:03"]


def test_what_is_spread_is_far_apart():
    assert spread(list(range(10)), 3) == [0, 3, 6]
    assert spread([1, 2], 5) == [1, 2]


def test_columns_of_the_console_table_are_aligned(two):
    lines = plain_table(score_rows(compare(*two))).split("\n")
    ends = [[m.end() for m in re.finditer(r"\S+(?: \S+)*", line)] for line in lines]
    assert ends[0][1:] == ends[1][1:] == ends[2][1:]
    assert set(ends[3][1:]) < set(ends[0])


def test_other_tasks_and_splits_do_not_compare(tmp_path):
    one = make_run(tmp_path / "a")
    text = make_run(tmp_path / "b", task="language_modeling")
    other = make_run(tmp_path / "c", "transformer", split="validation")
    assert "language_modeling: rnn (b)" in message_of(compare, one, text)
    assert "validation: transformer" in message_of(compare, one, other)


def test_what_is_no_scored_run_is_told_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    path = make_run(tmp_path / "a")
    (tmp_path / "a" / "eval" / "test-4.json").unlink()
    assert "not a directory" in message_of(read_run, str(tmp_path / "none"))
    assert "no config.json" in message_of(read_run, str(tmp_path / "empty"))
    assert f"run eval.py --workdir={path} first" in message_of(read_run, path)
    assert "given twice" in message_of(read_runs, [make_run(tmp_path / "b")] * 2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"split": "test"}', "\udcff"])
def test_a_damaged_score_card_is_told_in_one_line(tmp_path, content):
    path = make_run(tmp_path / "a")
    card = tmp_path / "a" / "eval" / "test-4.json"
    card.write_bytes(content.encode(errors="surrogateescape"))
    assert str(card) in message_of(read_run, path)


def test_the_program_writes_the_page_and_prints_the_table(two, tmp_path):
    output = tmp_path / "new" / "folder" / "page.html"
    done = report(f"--runs={','.join(two)}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "translation, toy/en-de, test split"
    assert lines[2].split()[:2] == ["rnn", "91.3"]
    assert lines[-1] == str(output)
    assert output.read_text(encoding="utf8") == render(compare(*two))


@pytest.mark.parametrize(
    "flags", [(), ("--runs=",), ("--runs=,",), ("--runs=nowhere",)]
)
def test_the_program_tells_a_mistake_in_one_line(flags, tmp_path):
    done = report(*flags, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_is_refused(two, tmp_path):
    for output in (tmp_path, tmp_path / "a" / "config.json" / "page.html"):
        done = report(f"--runs={two[0]}", f"--output={output}")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"--output={output}" in done.stderr
