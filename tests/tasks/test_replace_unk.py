"""Detokenization of translations: unknown words, tags and line breaks."""

import pytest

from data.tokenizers.symbols import WordTokenizer
from helpers.architectures import V, W
from helpers.task_cases import decode_options, translation_case
from tasks import translation
from tasks.unknown_words import replace_unknown


def test_unknown_words_are_copied_from_the_attended_source_words():
    words = WordTokenizer(["<pad>", "<eos>", "<unk>", "<bos>", "is", "here"])
    ids = words.encode("Ada is here with Bob")
    source = ["Ada", "ist", "hier", "mit", "Bob"]
    text = replace_unknown(words, ids, [0, 1, 2, 3, 4], source)
    assert text == "Ada is here mit Bob"
    text = replace_unknown(words, ids, [4, 1, 2, 5, 0], source)
    assert text == "Bob is here <unk> Ada"  # 5 is the source's end
    assert replace_unknown(words, ids[1:3], [0, 0], source) == "is here"


def test_tags_are_neither_output_nor_copied_for_an_unknown_word():
    plain = WordTokenizer(["<pad>", "<eos>", "<unk>", "<bos>", "is", "here"])
    words = plain.with_tags(["<2de>"])
    tag, unknown, here = words.tags["<2de>"], words.unk, words.token_to_id("here")
    source = [None, "hallo"]
    assert replace_unknown(words, [here, tag, unknown], [0, 0, 1], source) == (
        "here hallo"
    )
    assert replace_unknown(words, [unknown, here], [0, 1], source) == "<unk> here"


@pytest.mark.parametrize("replaces", [False, True])
def test_a_translation_is_one_line(replaces):
    case, _ = translation_case()
    symbols = ["<pad>", "<eos>", "<unk>", "<bos>", *map(str, range(4, W))]
    target = WordTokenizer([*symbols[:4], *(f"a\n{n}" for n in range(4, V))])
    task = translation.Task({"source": WordTokenizer(symbols), "target": target})
    cfg = decode_options(replace_unknown=replaces)
    (found,) = task.predict(case.model, case.variables, ["5 7"], cfg)
    assert found.startswith("a ")
    assert "\n" not in found


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_search_never_outputs_a_tag(method):
    case, _ = translation_case()
    symbols = ["<pad>", "<eos>", "<unk>", "<bos>", *map(str, range(4, V))]
    target = WordTokenizer(symbols[:-1]).with_tags(["<2de>"])
    assert target.tags == {"<2de>": V - 1}
    source = WordTokenizer([*symbols[:4], *map(str, range(4, W))])
    task = translation.Task({"source": source, "target": target})
    head = case.variables["params"]["head"]
    head = head | {"bias": head["bias"].at[V - 1].add(50.0)}
    variables = {"params": case.variables["params"] | {"head": head}}
    found = task.predict_n_best(
        case.model, variables, ["5 7"], decode_options(method=method)
    )
    [[(text, score), *_]] = found
    assert text
    assert score < -20  # the most probable token is not allowed


def test_a_translation_copies_unknown_words_from_its_source():
    case, _ = translation_case()
    special = ["<pad>", "<eos>", "<unk>", "<bos>"]
    source = WordTokenizer([*special, *map(str, range(4, W))])
    target = WordTokenizer([*special, *map(str, range(4, V))])
    task = translation.Task({"source": source, "target": target})
    line = "Ada 5 Bob 7"
    table = case.variables["params"]["head"]["bias"]
    head = case.variables["params"]["head"] | {"bias": table.at[2].add(20.0)}
    variables = {"params": case.variables["params"] | {"head": head}}
    cfg = decode_options(replace_unknown=True)
    (found,) = task.predict(case.model, variables, [line], cfg)
    assert found
    assert set(found.split()) <= {*line.split(), "<unk>"}
    cfg.data.max_length = 3  # with the end symbol
    (of_two,) = task.predict(case.model, variables, [line], cfg)
    assert set(of_two.split()) <= {"Ada", "5", "<unk>"}
    cfg = decode_options(replace_unknown=False)
    (shown,) = task.predict(case.model, variables, [line], cfg)
    assert set(shown.split()) == {"<unk>"}
    assert len(shown.split()) == len(found.split())
