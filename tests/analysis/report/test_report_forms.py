"""Tests of reports in Markdown and JSON, and of systems of several seeds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.report import renderers
from analysis.report.comparison import (
    Sample,
    compare_systems,
    disagreement,
    group_by_seed,
)
from analysis.report.content import Content, read_contexts
from analysis.report.runs import read_runs
from helpers.small_reports import (
    SAMPLES,
    compare,
    content_of,
    make_run,
    page_of,
    text_of,
    two_runs,
    write_json,
)
from utils.errors import UserError


def scored(loss):
    return {"loss": {"value": loss, "low": loss - 0.1, "high": loss + 0.1}}


def reseeded(path, seed):
    """Sets the seeds of a run directory, that of the data to one more."""
    config = json.loads((path / "config.json").read_text())
    config["data"]["seed"] = seed + 1
    write_json(path / "config.json", config | {"seed": seed})
    return str(path)


@pytest.fixture
def seeds(tmp_path):
    """Two systems of text: one of three seeds, one of a single seed."""
    runs = []
    for seed, loss in enumerate((1.0, 2.0, 3.0)):
        make_run(tmp_path / f"a{seed}", scores=scored(loss), samples=[])
        runs.append(reseeded(tmp_path / f"a{seed}", seed))
    runs.append(make_run(tmp_path / "b", "transformer", scores=scored(5), samples=[]))
    draw = np.random.default_rng(0)
    hard, weight = draw.normal(300, 30, 200), np.full(200, 100.0)
    for path, gain in zip(runs, (0, 0, 0, 40), strict=True):
        total = hard + gain + draw.normal(0, 1, 200)
        np.savez(f"{path}/eval/test-4.npz", total=total, weight=weight)
    return runs


def test_runs_equal_but_for_the_seed_are_one_system(seeds):
    one, other = group_by_seed(content_of(*seeds).comparison)
    assert (one.seeds, other.seeds) == ([0, 1, 2], [3])
    assert one.label == "rnn (a0) and 2 more seeds"
    assert one.scores["loss"] == (2.0, 1.0)
    assert other.scores["loss"] == (5.0, None)


def test_a_score_that_is_not_finite_is_null_in_json_and_nan_in_tables(seeds):
    path = Path(seeds[0]) / "eval" / "test-4.json"
    none = {"loss": {"value": None, "low": None, "high": None}}
    write_json(path, json.loads(path.read_text()) | {"scores": none})
    weight = np.full(200, 100.0)
    np.savez(path.with_suffix(".npz"), total=np.full(200, np.nan), weight=weight)
    content = content_of(*seeds)
    text = renderers.render_json(content)
    system = json.loads(text, parse_constant=pytest.fail)["systems"][0]
    assert system["scores"]["loss"] == {"mean": None, "deviation": None}
    [pair] = content.pairs  # not a difference from chance at p = 0.0001
    assert (pair.tested, pair.left_out) == (
        {},
        ("loss: sums of losses are not finite",),
    )
    assert "nan ± nan" in renderers.render_markdown(content)


def test_runs_with_a_repeated_seed_or_another_protocol_are_separate_systems(seeds):
    path = Path(seeds[1]) / "eval" / "test-4.json"
    card = json.loads(path.read_text())
    card["protocol"]["search"] = "beam"
    write_json(path, card)
    reseeded(Path(seeds[2]), 0)
    content = content_of(*seeds[:3])
    found = group_by_seed(content.comparison)
    assert [system.seeds for system in found] == [[0], [1], [0]]
    assert [system.scores["loss"] for system in found] == [(v, None) for v in (1, 2, 3)]
    [warning] = content.comparison.warnings()
    assert warning.startswith("protocols differ (search)")


def test_cards_of_averaged_checkpoints_are_read_with_their_other_files(seeds):
    for path in map(Path, seeds):
        for folder in ("eval", "samples", "plots"):
            for file in (path / folder).glob("*test-4.*"):
                file.rename(file.with_stem(f"{file.stem}-average-2"))
    content = content_of(seeds[0], seeds[3])
    [pair] = compare_systems(group_by_seed(content.comparison))
    assert (pair.tested.keys(), pair.left_out) == ({"loss"}, ())
    assert all(scored.attention for scored in content.comparison.cards)


def test_systems_are_tested_by_the_files_of_their_cards(seeds):
    [pair] = compare_systems(group_by_seed(content_of(*seeds).comparison))
    assert (pair.first, pair.second) == ("rnn (a0)", "transformer")
    found = pair.tested["loss"]
    assert found.difference == pytest.approx(0.4, abs=0.01)
    assert found.bootstrap < 0.01
    low, high = found.interval
    assert 0 < low < found.difference < high


def test_untested_pairs_have_a_reason(tmp_path):
    one = make_run(tmp_path / "a")
    two = make_run(tmp_path / "b", "transformer", data="bbbb")
    [pair] = content_of(one, two).pairs
    assert not pair.tested
    assert "protocols differ: data is 'aaaa'" in pair.left_out[0]
    assert not Content.from_paths([one, two], is_tested=False).pairs


def test_many_systems_are_tested_against_the_first(tmp_path):
    paths = [make_run(tmp_path / f"{n}", width=n + 1) for n in range(5)]
    found = content_of(*paths).pairs
    assert [pair.first for pair in found] == ["rnn (0)"] * 4
    assert len(content_of(*paths[:4]).pairs) == 6


def test_markdown_has_the_sections_of_the_page(seeds):
    content = content_of(*seeds)
    text = renderers.render_markdown(content)
    _, tree = page_of(*seeds)
    headings = [text_of(heading) for heading in tree.iter("h2")]
    found = [line[3:] for line in text.split("\n") if line.startswith("## ")]
    assert found == [title for title in headings if title not in ("Cost", "Attention")]
    lines = text.split("\n")
    [head] = [line for line in lines if line.startswith("| system |")]
    row = lines[lines.index(head) + 2].split(" | ")
    assert row[:2] == ["| rnn (a0) and 2 more seeds", "0, 1, 2"]
    assert row[2].startswith("2.000 ± 1.000")
    assert "| rnn (a0) and transformer | loss | +0." in text


def test_rows_of_a_markdown_table_have_equally_many_cells(tmp_path):
    evil = "a|b\n<i>*c* _d_ `e` \\"
    lines = [{"source": evil, "reference": evil, "hypothesis": evil}, *SAMPLES]
    text = renderers.render_markdown(
        content_of(make_run(tmp_path / "a", samples=lines))
    )
    assert "<i>" not in text
    assert "a\\|b &lt;i&gt;\\*c\\* \\_d\\_ \\`e\\` \\\\" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = block.strip().replace("\\|", "").split("\n")
            assert len({row.count("|") for row in rows}) == 1
    assert renderers.escape_markdown("transformer_xl") == "transformer_xl"


def test_json_has_unrounded_numbers(seeds):
    content = content_of(*seeds)
    found = json.loads(renderers.render_json(content))
    assert found["split"] == "test"
    assert [run["scores"]["loss"]["value"] for run in found["runs"]] == [1, 2, 3, 5]
    assert found["systems"][0]["scores"]["loss"] == {"mean": 2.0, "deviation": 1.0}
    [pair] = found["pairs"]
    assert (
        pair["tested"]["loss"]["difference"]
        == content.pairs[0].tested["loss"].difference
    )
    assert found["runs"][0]["trained"]["seconds"] == 75
    assert found["runs"][0]["curves"]["loss"]["step"] == [[2, 5.5], [4, 4.5]]


def test_samples_prefer_sentences_on_which_systems_differ_most(tmp_path):
    near = [
        {"source": f"{i}", "reference": "vier Uhr", "hypothesis": "vier Uhr"}
        for i in range(30)
    ]
    far = [line | {"hypothesis": "vier Uhr."} for line in near]
    for number in (3, 17, 29):
        far[number] = far[number] | {"hypothesis": "zzz"}
    one = make_run(tmp_path / "a", samples=near)
    two = make_run(tmp_path / "b", "transformer", samples=far)
    samples = compare(one, two).samples
    assert {"3", "17", "29"} < {sample.source for sample in samples}
    assert disagreement(Sample("a", "b", ("b", "b"))) == 0
    assert disagreement(Sample("a", "abcdefg", ("abcdefg", "x"))) == 100


def test_effective_contexts_are_read_from_folders_of_the_runs(tmp_path):
    paths = two_runs(tmp_path)
    recl = {"length": 64, "is_longest": True, "gains": []}
    result = {"loss": [3.5, 3.25], "recl": {"0.1": recl}}
    summary = {"lengths": [32, 64], "runs": {paths[1]: result, "elsewhere": result}}
    write_json(tmp_path / "effective-context.json", summary)
    [found] = read_contexts(read_runs(paths))
    assert (found.run, found.lengths) == (1, {"0.1": "at least 64"})
    assert (found.first, found.last) == ((32, 3.5), (64, 3.25))
    _, tree = page_of(*paths)
    assert "Effective context" in [text_of(heading) for heading in tree.iter("h2")]
    far = tmp_path / "far"
    far.mkdir()
    shutil.move(tmp_path / "effective-context.json", far / "effective-context.json")
    assert not read_contexts(read_runs(paths))
    assert read_contexts(read_runs(paths), [str(far)]) == [found]
    with pytest.raises(UserError, match="--context="):
        read_contexts(read_runs(paths), [str(tmp_path / "none")])
