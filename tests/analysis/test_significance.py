"""Tests of paired tests, against exact counts and known differences."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
import sacrebleu

from analysis import paired_tests
from analysis.paired_tests import loss_statistics, score_function, text_statistics
from analysis.report.score_cards import (
    compare_cards,
    open_card,
    protocol_differences,
    seed_statistics,
)
from analysis.significance import (
    check_protocols,
    open_systems,
    seeds_tests_table,
    shorten,
)
from helpers.entry_points import assert_refused, run
from utils.errors import UserError

TEXT = "the a dog cat sees hears runs eats big small red blue house tree of in"
WORDS = TEXT.split()


def sentences(count, seed, *, errors=0.0):
    """Sentences of seven words with a rate of wrong words."""
    draw, wrong = np.random.default_rng(1), np.random.default_rng(seed)
    texts = []
    for words in draw.choice(WORDS, (count, 7)):
        bad = wrong.random(7) < errors
        texts.append(" ".join(np.where(bad, wrong.choice(WORDS, 7), words)))
    return texts


def compare_losses(first, second, weight):
    return loss_statistics((first, second), weight).compare()


def compare_texts(first, second, references, *, tokenize):
    statistics = text_statistics((first, second), references, tokenize=tokenize)
    return {name: entry.compare() for name, entry in statistics.items()}


def randomisation(change):
    """Returns the p value of randomisation for blocks with these differences."""
    weight = np.full(len(change), 9)
    return compare_losses(np.zeros(len(change)), change, weight).randomisation


def test_few_blocks_are_swapped_in_all_combinations():
    change = np.asarray([3.0, -1.0, 2.0, 0.5])
    count = 0
    for signs in itertools.product((1, -1), repeat=4):
        total = sum(sign * value for sign, value in zip(signs, change, strict=True))
        count += abs(total) >= 4.5
    assert randomisation(change) == count / 16
    # By hand: 6.5 with all as one, 5.5 without the least, 4.5 without the one.
    assert count == 6


def test_random_swaps_of_many_blocks_approximate_the_exact_p_value():
    change = np.random.default_rng(2).normal(0.2, 1.0, 14)
    every = np.asarray(list(itertools.product((-1, 1), repeat=14)))
    exact = (np.abs(every @ change) >= abs(change.sum()) - 1e-9).mean()
    assert 0.05 < exact < 0.95
    assert randomisation(change) == pytest.approx(exact, abs=0.02)


def losses(shift, seed):
    """Sums of two systems over blocks of unequal size; one is worse by `shift`."""
    draw = np.random.default_rng(seed)
    weight = draw.integers(50, 130, 300)
    hardness = draw.normal(5.0, 1.0, 300)  # of a block, for both
    one, other = (hardness + draw.normal(0.0, 0.1, 300) for _ in range(2))
    return one * weight, (other + shift) * weight, weight


def test_a_known_shift_of_losses_is_found_although_blocks_differ_more():
    found = compare_losses(*losses(0.05, seed=0))
    assert found.difference == pytest.approx(0.05, abs=0.02)
    assert found.bootstrap < 0.01
    assert found.randomisation < 0.01
    low, high = found.interval
    assert 0 < low < found.difference < high < 0.1


def test_few_blocks_have_no_bootstrap():
    one, other, weight = (part[:19] for part in losses(0.05, seed=0))
    found = compare_losses(one, other, weight)
    assert (found.bootstrap, found.interval) == (None, ())
    assert found.randomisation == randomisation(other - one)
    alone = compare_losses(one[:1], other[:1], weight[:1])
    assert (alone.bootstrap, alone.randomisation) == (None, 1.0)


def test_equal_systems_differ_no_more_often_than_by_chance(monkeypatch):
    monkeypatch.setattr(paired_tests, "TRIALS", 1000)
    found = [compare_losses(*losses(0.0, seed=seed)) for seed in range(20)]
    for name in ("bootstrap", "randomisation"):
        p = np.asarray([getattr(one, name) for one in found])
        assert (p < 0.05).sum() <= 3
        assert 0.25 < p.mean() < 0.75
    covered = sum(one.interval[0] <= 0 <= one.interval[1] for one in found)
    assert covered >= 17
    same = losses(0.0, seed=0)[0]
    none = compare_losses(same, same, np.full(300, 9))
    assert (none.difference, none.randomisation, none.bootstrap) == (0.0, 1.0, 1.0)


def test_texts_with_more_errors_score_worse_and_equal_ones_alike():
    references = sentences(120, 0)
    good, bad = (sentences(120, 5, errors=share) for share in (0.1, 0.3))
    found = compare_texts(bad, good, references, tokenize="13a")
    for name in ("bleu", "chrf"):
        assert found[name].difference > 5
        assert found[name].bootstrap < 0.01
        assert found[name].randomisation < 0.01
    alike = sentences(120, 6, errors=0.1)
    for one in compare_texts(good, alike, references, tokenize="13a").values():
        assert one.randomisation > 0.05
        assert one.bootstrap > 0.05


def better_in(count):
    """Two systems' texts with their references, the second better in `count` of 300."""
    references = sentences(300, 0)
    first = sentences(300, 5, errors=0.2)
    places = [i for i in range(300) if first[i] != references[i]][:count]
    second = [references[i] if i in places else first[i] for i in range(300)]
    return first, second, references


def test_texts_that_differ_in_few_sentences_have_exact_p_values():
    # As large a difference needs all of them swapped alike: 2 ways of 2^k.
    for count, p in ((0, 1.0), (1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625)):
        for one in compare_texts(*better_in(count), tokenize="13a").values():
            assert (one.difference > 0) == (count > 0)
            assert one.randomisation == pytest.approx(p, abs=0.02)
            low, high = one.interval
            assert 0 <= low <= one.difference <= high
    [same, _] = compare_texts(*better_in(0), tokenize="13a").values()
    assert (same.bootstrap, same.randomisation, same.interval) == (1.0, 1.0, (0, 0))


def test_texts_of_equal_systems_differ_no_more_often_than_by_chance(monkeypatch):
    monkeypatch.setattr(paired_tests, "TRIALS", 300)
    monkeypatch.setattr(paired_tests, "SAMPLES", 300)
    references = sentences(60, 0)
    found = []
    for seed in range(60):
        texts = [sentences(60, 2 * seed + i, errors=0.2) for i in (101, 102)]
        statistics = text_statistics(texts, references, tokenize="13a")
        found.append(statistics["bleu"].compare())
    for name in ("bootstrap", "randomisation"):
        p = np.asarray([getattr(one, name) for one in found])
        assert (p < 0.1).sum() <= 11  # of 60 fair ones more in 1 of 50 draws
        assert 0.35 < p.mean() < 0.65
    assert sum(one.interval[0] <= 0 <= one.interval[1] for one in found) >= 53


@pytest.mark.parametrize("metric", [sacrebleu.BLEU(), sacrebleu.CHRF()])
def test_statistics_of_sentences_add_up_to_the_corpus_score(metric):
    first, _, references = better_in(0)
    counted = np.asarray(metric._extract_corpus_statistics(first, [references]), float)
    whole = metric.corpus_score(first, [references]).score
    assert score_function(metric)(counted.sum(0)) == pytest.approx(whole, rel=1e-9)


def make_card(
    folder, *, loss=1.0, bleu=20.0, errors=0.1, step=7, blocks=40, **protocol
):
    """A run directory with one card and its other files."""
    for name in ("eval", "samples"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    protocol = {
        "bleu_signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        "decode": {"beam_size": 4},
        "data": "0123",
        "vocabulary": "4567",
        "checkpoint": step,
        "commit": str(folder),
    } | protocol
    scores = {"bleu": {"value": bleu}, "loss": {"value": loss}}
    card = {"split": "test", "step": step, "scores": scores, "protocol": protocol}
    (folder / "eval" / f"test-{step}.json").write_text(json.dumps(card))
    weight = np.full(blocks, 9, np.uint32)
    np.savez(folder / "eval" / f"test-{step}.npz", total=loss * weight, weight=weight)
    references = sentences(blocks, 0)
    found = sentences(blocks, 5, errors=errors)
    rows = [json.dumps({"hypothesis": text}) + "\n" for text in found]
    (folder / "samples" / f"test-{step}.jsonl").write_text("".join(rows))
    lines = "".join(f"{line}\n" for line in references)
    (folder / "samples" / f"test-{step}.references.txt").write_text(lines)
    return str(folder)


def test_different_protocols_are_refused_and_listed(tmp_path):
    one = make_card(tmp_path / "a")
    other = make_card(tmp_path / "b", decode={"beam_size": 5}, memory_length=3, step=9)
    systems = open_systems(f"{one},{other}", "test")
    message = (
        "decode.beam_size is 4 in .*a/eval/test-7.json and 5 in .*b/eval/test-9.json"
    )
    with pytest.raises(UserError, match=f"{message}; memory_length is None .* --force"):
        check_protocols(systems, force=False)
    assert len(check_protocols(systems, force=True)) == 2
    again = make_card(tmp_path / "c", step=12)
    assert not check_protocols(open_systems(f"{one},{again}", "test"), force=False)


def test_a_card_that_is_named_twice_is_refused(tmp_path):
    card = make_card(tmp_path / "a")
    with pytest.raises(UserError, match=r"names .*test-7\.json twice"):
        open_systems(f"{card}+{card}", "test")


def test_an_error_lists_the_first_differences():
    assert shorten(["a", "b"]) == "a; b"
    assert shorten([*"abcdefg"]) == "a; b; c; d; and 3 more"


def test_the_newest_card_of_a_directory_is_read_with_its_other_files(tmp_path):
    make_card(tmp_path, step=5, loss=2.0)
    card = open_card(make_card(tmp_path, step=40), "test")
    assert card.path.name == "test-40.json"
    assert card.references == sentences(40, 0)
    assert card.hypotheses == sentences(40, 5, errors=0.1)
    assert card.blocks[1].sum() == 360
    assert open_card(tmp_path / "eval" / "test-5.json", "").values["loss"] == 2.0
    assert not protocol_differences(
        [card, open_card(tmp_path / "eval" / "test-5.json", "")]
    )
    with pytest.raises(UserError, match="no score card of the split 'validation'"):
        open_card(tmp_path, "validation")


def test_a_card_with_damaged_files_is_refused(tmp_path):
    make_card(tmp_path, step=40)
    path = tmp_path / "eval" / "test-40.json"
    samples = tmp_path / "samples" / "test-40.jsonl"
    blocks, whole = path.with_suffix(".npz"), samples.read_text()
    samples.write_text("".join(whole.splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="has 3 hypotheses for 40 references"):
        open_card(path, "test")
    samples.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1 is not an object"):
        open_card(path, "test")
    samples.write_bytes(b"a\xff\n")
    with pytest.raises(UserError, match=r"test-40\.jsonl is damaged"):
        open_card(path, "test")
    samples.write_text(whole)
    for junk in (b"junk", blocks.read_bytes()[:-9], b""):
        blocks.write_bytes(junk)
        with pytest.raises(UserError, match=r"test-40\.npz is damaged"):
            open_card(path, "test")
    path.write_text('{"split": "test", "step": 1, "scores": "x"}')
    with pytest.raises(UserError, match="its scores are not an object"):
        open_card(path, "test")


def test_untestable_scores_are_left_out_with_a_reason(tmp_path):
    one, other = (open_card(make_card(tmp_path / name), "test") for name in "ab")
    assert compare_cards(one, other)[0].keys() == {"bleu", "chrf", "loss"}
    third = open_card(make_card(tmp_path / "c", vocabulary="89"), "test")
    found, left_out = compare_cards(one, third)
    assert found.keys() == {"bleu", "chrf"}
    assert "not of the same tokens" in left_out[0]
    (tmp_path / "b" / "eval" / "test-7.npz").unlink()
    found, left_out = compare_cards(one, open_card(tmp_path / "b", "test"))
    assert "run eval.py again" in left_out[0]


def test_exact_matches_of_translations_are_tested(tmp_path):
    cards = [open_card(make_card(tmp_path / name), "test") for name in "ab"]
    cards[1] = dataclasses.replace(
        cards[1], samples=[{"hypothesis": text} for text in cards[1].references]
    )
    for card in cards:
        card.content["scores"]["exact_match"] = {"value": 0.0}
    found, _ = compare_cards(*cards)
    pairs = zip(cards[0].hypotheses, cards[0].references, strict=True)
    right = sum(one == other for one, other in pairs) / len(cards[0].references)
    assert found["exact_match"].difference == pytest.approx(100 * (1 - right))


def test_seeds_have_a_mean_and_a_sample_standard_deviation(tmp_path):
    places = [
        make_card(tmp_path / f"lr=1e+0,seed={seed}", bleu=bleu)
        for seed, bleu in enumerate((20.0, 21.0, 25.0))
    ]
    [system] = open_systems("+".join(places), "test")
    mean, deviation = seed_statistics(system)["bleu"]
    assert mean == 22.0
    assert deviation == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert seed_statistics(system[:1])["bleu"] == (20.0, None)


def test_seeds_on_too_few_sentences_are_not_tested(tmp_path):
    places = [make_card(tmp_path / name, blocks=19) for name in "abc"]
    first, second = open_systems(f"{places[0]}+{places[1]},{places[2]}", "test")
    table = seeds_tests_table(first, second)
    assert any("loss: The split has 19 blocks" in line for line in table)


def test_the_command_prints_seeds_and_tests_or_refuses_in_one_line(tmp_path):
    places = [
        make_card(tmp_path / name, loss=loss, bleu=bleu, errors=errors)
        for name, loss, bleu, errors in (
            ("a", 1.0, 20.0, 0.1),
            ("b", 1.0, 22.0, 0.1),
            ("c", 1.5, 9.0, 0.5),
        )
    ]
    script = "analysis/significance.py"
    done = run(script, f"--cards={places[0]}+{places[1]},{places[2]}")
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "21.0000 ± 1.4142 over 2 seeds" in text
    assert "means over seeds" in text
    assert re.search(r"chrf +-44\.0\d+ +0\.00\d+  \[-\d+\.\d+, -\d+\.\d+\]", text)
    assert re.search(r"loss +\+0\.5000 +0\.0000  \[\+0\.5000, \+0\.5000\]", text)
    done = run(script, f"--cards={places[0]},{places[2]}")
    text = done.stdout.decode()
    [bleu] = [
        line for line in text.splitlines() if line.count("0.00") > 1 and "bleu" in line
    ]
    assert float(bleu.split()[1]) < -5
    assert "+0.5000" in text
    assert_refused(run(script, f"--cards={places[0]}"), "fewer than two")
    assert_refused(run(script, f"--cards={places[0]},{tmp_path}/no"), "no such")
    make_card(tmp_path / "c", tokenizer="byte")
    done = run(script, f"--cards={places[0]},{places[2]}")
    assert_refused(done, "tokenizer is None", "'byte'", "--force")
