"""Tests of reports on labels and tags: classes, confusions and marked errors."""

import json
from pathlib import Path

from analysis.report.content import CURVES, curve_names
from analysis.report.label_tables import (
    MAX_CLASSES,
    MAX_MATRIX,
    Confusion,
    Label,
    choose_samples,
    confusion_rows,
    format_labels,
    labeled_sample,
)
from analysis.report.renderers import render_json, render_markdown
from helpers.small_reports import ATTENTION, content_of, make_run, page_of, text_of

ACCURACY = {
    "accuracy": {"value": 60.0, "low": 20.0, "high": 90.0},
    "macro_f1": {"value": 55.0},
    "loss": {"value": 0.75},
}
NAMES = ["good", "bad"]
SAMPLES = [
    {"source": "fine", "reference": "good", "hypothesis": "good"},
    {"source": "dull\tand slow", "reference": "bad", "hypothesis": "good"},
    {"source": "awful", "reference": "bad", "hypothesis": "bad"},
]
TABLES = {
    "classes": [
        {"class": "good", "precision": 50, "recall": 100, "f1": 66.666, "support": 1},
        {"class": "bad", "precision": 100, "recall": 50, "f1": 66.666, "support": 2},
    ],
    "confusion": {"names": NAMES, "counts": [[1, 0], [1, 1]]},
}
TAGGED = [
    {
        "source": "Ann saw Bonn",
        "reference": "B-PER O B-LOC",
        "hypothesis": "B-PER O O",
        "reference_intent": "travel",
        "hypothesis_intent": "sport",
    }
]


def labeled_run(path, **changes):
    options = {"task": "classification", "scores": ACCURACY, "attention": None}
    options |= {"samples": SAMPLES, "tables": TABLES, "baselines": {}}
    return make_run(path, **options | changes)


def tagged_run(path, **changes):
    scores = {"f1": {"value": 66.67, "low": 50.0, "high": 80.0}}
    classes = {"classes": [{**TABLES["classes"][0], "class": "PER"}]}
    options = {"task": "tagging", "scores": scores, "samples": TAGGED}
    return labeled_run(path, **options | {"tables": classes} | changes)


def test_the_attention_of_an_encoder_is_explained_as_such(tmp_path):
    attention = {**ATTENTION, "kind": "self", "target": ["→ sport", "sun"]}
    _, tree = page_of(labeled_run(tmp_path / "a", attention=attention))
    assert headings(tree)[-1] == "Attention"
    table = table_after(tree, "Attention")
    assert cells(next(table.iter("tr")))[1:] == attention["source"]
    text = text_of(tree.find("body"))
    assert "A row with an arrow" in text
    assert "Cross-attention" not in text


def headings(tree):
    return [text_of(heading) for heading in tree.iter("h2")]


def cells(row):
    return [text_of(cell) for cell in row]


def table_after(tree, heading):
    """The first table after a heading."""
    body = list(tree.find("body").iter())
    [start] = [n for n, one in enumerate(body) if text_of(one) == heading][-1:]
    return next(one for one in body[start:] if one.tag == "table")


def test_the_page_has_scores_by_class_and_confusions(tmp_path):
    _, tree = page_of(labeled_run(tmp_path / "a"))
    assert headings(tree)[1:4] == ["Classes", "Confusions", "Samples"]
    rows = [cells(row) for row in table_after(tree, "Classes").iter("tr")]
    assert rows == [
        ["class", "examples", "precision", "recall", "F1"],
        ["good", "1", "50.00", "100.00", "66.67"],
        ["bad", "2", "100.00", "50.00", "66.67"],
    ]
    matrix = tree.find(".//table[@class='heat counts run0 dash0']")
    rows = [cells(row) for row in matrix.findall("tbody/tr")]
    assert rows == [["good", "1", ""], ["bad", "1", "1"]]
    shades = [shade.get("style") for shade in matrix.iter("i")]
    assert shades == [f"opacity:{0.65 * x:.2f}" for x in (1, 0, 0.5, 0.5)]
    wrong = [cell.get("class") for cell in matrix.iter("td")]
    assert wrong == [None, "wrong", "wrong", None]


def test_the_score_table_has_the_interval_of_accuracy(tmp_path):
    _, tree = page_of(labeled_run(tmp_path / "a"))
    titles, run = (cells(row) for row in list(tree.find(".//table").iter("tr"))[:2])
    assert titles[1:3] == ["accuracy, %", "95% interval of accuracy"]
    assert run[1:3] == ["60.00", "20.00 to 90.00"]


def test_wrong_labels_are_marked_and_pairs_are_two_texts(tmp_path):
    _, tree = page_of(labeled_run(tmp_path / "a"))
    rows = table_after(tree, "Samples").findall("tbody/tr")
    assert [len(row[0].findall("bdi")) for row in rows] == [1, 2, 1]
    marks = [row[2].find("bdi").get("class") for row in rows]
    assert marks == ["right", "wrong", "right"]


def test_wrong_tags_and_intents_are_marked(tmp_path):
    _, tree = page_of(tagged_run(tmp_path / "a"))
    assert headings(tree)[1:3] == ["Entities", "Samples"]
    reference, found = table_after(tree, "Samples").find("tbody/tr")
    words = [text_of(ruby) for ruby in reference.iter("ruby")]
    assert words == ["AnnB-PER", "saw", "BonnB-LOC"]
    words = [(text_of(ruby), ruby.get("class")) for ruby in found.iter("ruby")]
    assert words == [("AnnB-PER", None), ("saw", None), ("Bonn✗ O", "wrong")]
    intent = found.find("bdi")
    assert (text_of(intent), intent.get("class")) == ("sport", "wrong")


def test_runs_are_compared_by_class_and_with_markdown_and_json(tmp_path):
    other = [{**line, "hypothesis": line["reference"]} for line in SAMPLES]
    paths = (
        labeled_run(tmp_path / "a"),
        labeled_run(tmp_path / "b", model="transformer", samples=other),
        labeled_run(tmp_path / "c", model="transformer_xl", samples=other),
    )
    content = content_of(*paths)
    assert list(content.labels.rows[0]) == [
        *("class", "examples", "rnn, F1", "transformer, F1", "transformer_xl, F1")
    ]
    text = render_markdown(content)
    assert "| dull \\| and slow | bad | ✗good | bad | bad |" in text
    assert "## Confusions of rnn" in text
    document = json.loads(render_json(content))
    assert document["runs"][0]["confusion"] == TABLES["confusion"]
    assert len(document["samples"]) == 3


def test_tags_in_markdown_follow_their_words(tmp_path):
    text = render_markdown(content_of(tagged_run(tmp_path / "a")))
    assert "Ann/B-PER saw Bonn/B-LOC travel" in text
    assert "Ann/B-PER saw Bonn/✗O ✗sport" in text


def test_many_classes_give_the_most_confused_pairs(tmp_path):
    names = [f"c{n:02}" for n in range(MAX_CLASSES + 3)]
    assert len(names) > MAX_MATRIX
    rows = [
        {"class": n, "precision": 1, "recall": 1, "f1": 1, "support": 9} for n in names
    ]
    matrix = {"names": names, "counts": [[0] * len(names)] * len(names)}
    samples = [
        {"source": f"{n}", "reference": "c01", "hypothesis": f"c0{min(n, 2)}"}
        for n in range(8)
    ]
    tables = {"classes": rows, "confusion": matrix}
    path = labeled_run(tmp_path / "a", samples=samples, tables=tables)
    labels = content_of(path).labels
    [found] = labels.confusions
    assert (found.names, labels.num_left_out) == ((), 3)
    assert found.pairs[0] == {
        **{"class": "c01", "predicted": "c02", "examples": "6"},
        "of the class": "75%",
    }
    assert "heat" not in page_of(path)[0].partition("</style>")[2]


def test_runs_without_samples_are_not_tested(tmp_path):
    paths = [labeled_run(tmp_path / name, samples=()) for name in "ab"]
    content = content_of(*paths)
    [pair] = content.pairs
    assert not pair.tested
    assert "predictions are missing" in pair.left_out[0]
    assert content.labels.samples == []
    assert len(content.labels.rows) == 2


def test_samples_are_disputed_ones_then_errors():
    lines = [("good", "good"), ("good", "bad"), ("bad", "good"), ("good", "good")] * 9
    samples = [
        labeled_sample(
            [
                {"source": f"{n}", "reference": actual, "hypothesis": found}
                for found in (found, actual if n < 12 else found)
            ]
        )
        for n, (actual, found) in enumerate(lines)
    ]
    chosen = choose_samples(samples)
    assert len(chosen) == 12
    assert sum(sample.disagreement > 0 for sample in chosen) == 6
    assert sum(sample.errors == (1, 1) for sample in chosen) == 4


def test_grades_have_errors_by_size_and_no_marks():
    line = {"source": "a\tb", "reference": "2.0", "hypothesis": "2.5"}
    sample = labeled_sample([line], is_graded=True)
    assert sample.outputs == ((Label("2.5", None, None),),)
    assert sample.errors == (0.5,)


def test_the_tag_of_words_outside_is_hidden_and_a_class_of_that_name_is_not():
    word, text = Label("O", "to", True), Label("O", None, True)
    assert format_labels([word]) == "to"
    assert format_labels([text]) == "O"


def test_the_rows_of_a_matrix_have_their_names_whatever_the_classes():
    names = ("class", "b")
    rows = confusion_rows(Confusion(0, names, ((5, 1), (2, 3)), ()))
    assert [[*row.values()] for row in rows] == [["class", "5", "1"], ["b", "2", "3"]]


def test_the_score_that_selects_checkpoints_has_a_curve(tmp_path):
    run = Path(labeled_run(tmp_path / "a"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "keep": {"metric": "ter"}}))
    content = content_of(str(run))
    assert curve_names(content.runs)[-1] == "ter"
    assert curve_names([]) == list(CURVES)
