"""Published corpora of text pairs, from small files in their formats."""

import pytest

from data.corpora.pairs.dialogues import Dstc2
from data.corpora.pairs.word_problems import Mawps, Svamp
from data.registry import CORPORA, builder_class
from helpers.tables import prepare_table, refusal, rows, write

SPLITS = ("train", "validation", "test")
PROBLEM = "question\tequation\tnumbers\tanswer"
FACTS = ["luna R_cuisine thai", "luna R_phone luna_phone", "sol R_cuisine greek"]
DIALOGUES = [
    "dialog\tline\tkind\tuser\tbot",
    "0\t1\tturn\t<SILENCE>\tHello , what food ?",
    "0\t2\tturn\tthai\tapi_call thai",
    "0\t3\tkb\tluna R_cuisine thai\t",
    "0\t4\tkb\tluna R_phone luna_phone\t",
    "0\t5\tturn\t<SILENCE>\tluna serves thai",
    "0\t6\tturn\tor greek\tapi_call greek",
    "0\t7\tkb\tsol R_cuisine greek\t",
    "0\t8\tturn\t\tluna_phone luna_phone",
    "1\t1\tturn\thi\tHello , what food ?",
]
TURNS = "<user> <SILENCE> <bot> Hello , what food ? <user> thai"
LATER = f"{TURNS} <bot> api_call thai <user> <SILENCE>"
LAST = f"{LATER} <bot> luna serves thai <user> or greek <bot> api_call greek <user>"
LUNA = "<kb> luna R_cuisine thai <kb> luna R_phone luna_phone"
SOL = "<kb> sol R_cuisine greek"


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


def column(builder, split, name):
    return [row[name] for row in rows(builder, split)]


def write_problems(folder, sizes):
    for stem, size in sizes.items():
        extra = "\t1" if stem.endswith("test") else ""
        lines = [f"q{n} number0\t+ number0 {n}\t2\t{n + 2}{extra}" for n in range(size)]
        header = PROBLEM + ("\tseen" if extra else "")
        write(folder / f"{stem}.tsv.gz", [header, *lines])


def write_dialogues(folder, lines=DIALOGUES, facts=FACTS):
    write(folder / "kb.txt.gz", facts)
    for stem in ("train", "dev", "test"):
        write(folder / f"{stem}.tsv", lines)


def test_every_corpus_has_its_source_licence_reference_and_language():
    names = {name for name, module in CORPORA.items() if ".pairs." in module}
    assert names == {"aeslc", "dstc2", "hmwp", "mawps", "svamp", "text_pairs"}
    for name in names - {"text_pairs"}:
        cls = builder_class(name)
        assert cls.name == name
        assert cls.HOMEPAGE.startswith("https://")
        assert cls.LICENSE
        assert "(" in cls.CITATION
        assert cls.language in ("en", "zh")
        assert cls.SIZES.keys() == {*SPLITS}


def test_subjects_have_further_references_outside_of_training(source, data):
    write(source / "train.tsv", ["id\tsubject\tbody", "a\tLunch\tShall we eat ?"])
    header = "id\tsubject\tann0\tann1\tann2\tbody"
    for stem in ("dev", "test"):
        write(source / f"{stem}.tsv", [header, "b\tx\tone\ttwo\tthree\tBody ."])
    builder = prepare_table("aeslc", data, source)
    [mail] = rows(builder, "test")
    assert [mail[f"ann{n}"] for n in range(3)] == ["one", "two", "three"]
    [mail] = rows(builder, "train")
    assert (mail["body"], mail["subject"]) == ("Shall we eat ?", "Lunch")
    assert [mail[f"ann{n}"] for n in range(3)] == [""] * 3


def test_a_response_follows_all_lines_before_it(source, data):
    write_dialogues(source)
    builder = prepare_table("dstc2", data, source)
    assert list(builder.info.splits) == list(SPLITS)
    for split in SPLITS:
        assert column(builder, split, "history") == [
            "<user> <SILENCE>",
            TURNS,
            LATER,
            f"{LATER} <bot> luna serves thai <user> or greek",
            LAST,
            "<user> hi",
        ]
    numbers = zip(
        *(column(builder, "test", n) for n in ("dialog", "line")), strict=True
    )
    expected = [("0", "1"), ("0", "2"), ("0", "5"), ("0", "6"), ("0", "8"), ("1", "1")]
    assert list(numbers) == expected
    assert column(builder, "test", "bot")[1:3] == ["api_call thai", "luna serves thai"]


def test_entities_are_the_words_that_facts_know(source, data):
    write_dialogues(source)
    builder = prepare_table("dstc2", data, source)
    expected = ["", "thai", "luna thai", "greek", "luna_phone luna_phone", ""]
    assert column(builder, "test", "entities") == expected
    write(source / "kb.txt.gz", FACTS[:2])
    other = prepare_table("dstc2", data, source)
    assert other.info.full_name != builder.info.full_name
    assert column(other, "test", "entities")[3] == ""


def test_facts_follow_the_turns_those_of_the_last_call_first(source, data):
    write_dialogues(source)
    builder = prepare_table("dstc2/kb", data, source)
    assert column(builder, "test", "history") == [
        "<user> <SILENCE>",
        TURNS,
        f"{LATER} {LUNA}",
        f"{LATER} <bot> luna serves thai <user> or greek {LUNA}",
        f"{LAST} {SOL} {LUNA}",
        "<user> hi",
    ]


def test_the_last_problems_are_validation_unless_trained_on(source, data, monkeypatch):
    monkeypatch.setattr(Svamp, "HELD_OUT", 2)
    write_problems(source, {"train": 5, "test": 3})
    builder = prepare_table("svamp", data, source)
    questions = [f"q{n} number0" for n in range(5)]
    assert column(builder, "train", "question") == questions[:3]
    assert column(builder, "validation", "question") == questions[3:]
    assert column(builder, "test", "question") == questions[:3]
    assert column(builder, "validation", "seen") == ["", ""]
    assert rows(builder, "test")[1] == {
        **{"question": "q1 number0", "equation": "+ number0 1", "numbers": "2"},
        **{"answer": "3", "seen": "1"},
    }
    joined = prepare_table("svamp/train_and_valid", data, source)
    assert column(joined, "train", "question") == questions
    assert column(joined, "validation", "question") == questions[3:]


def test_a_config_chooses_a_fold(source, data, monkeypatch):
    monkeypatch.setattr(Mawps, "HELD_OUT", 1)
    for fold in range(5):
        sizes = {f"fold{fold}_train": 3 + fold, f"fold{fold}_test": 2}
        write_problems(source, sizes)
    for suffix, held_out in {"": 1, "_train_and_valid": 0}.items():
        builder = prepare_table(f"mawps/fold3{suffix}", data, source)
        sizes = [builder.info.splits[split].num_examples for split in SPLITS]
        assert sizes == [6 - held_out, 1, 2]


def test_equation_systems_are_read_as_published(source, data):
    header = "id\tquestion\tequation\tanswer"
    for stem in ("train", "dev", "test"):
        write(source / f"{stem}.tsv.gz", [header, "7\t多少 ？\tx + y = 3 ; x = 1\t1 2"])
    assert rows(prepare_table("hmwp", data, source), "test") == [
        {
            "id": "7",
            "question": "多少 ？",
            "equation": "x + y = 3 ; x = 1",
            "answer": "1 2",
        }
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aeslc", "lacks train.tsv: aeslc is read from train.tsv, dev.tsv, test.tsv"),
        ("dstc2", "lacks kb.txt: dstc2 is read from kb.txt, train.tsv, dev.tsv, test"),
        ("dstc2/facts", "dstc2 has no config 'facts': choose dstc2 or dstc2/kb"),
        ("mawps", "mawps/ names no fold: choose one of mawps/fold0, mawps/fold1,"),
        ("mawps/fold5", "mawps/fold5 names no fold: choose one of mawps/fold0,"),
        ("mawps/fold2", "lacks fold2_train.tsv: mawps is read from fold2_train.tsv,"),
        ("svamp/all", "svamp has no config 'all': choose svamp or svamp/train_and_v"),
    ],
)
def test_missing_files_and_configs_are_named(source, data, name, said):
    write(source / "notes.txt", ["none of them"])
    assert said in refusal(name, data, source)


@pytest.mark.parametrize(
    ("lines", "facts", "said"),
    [
        (
            ["dialog\tline\tuser\tbot", "0\t1\ta\tb"],
            FACTS,
            "lacks the column kind; the",
        ),
        (
            [*DIALOGUES, "1\t2\tfact\ta\tb"],
            FACTS,
            "train.tsv: line 2 of dialogue 1 is of kind 'fact'; choose turn or kb",
        ),
        (DIALOGUES, ["a R_b c", "a b"], "kb.txt.gz, line 2: 'a b' has 2 words, and a"),
    ],
)
def test_wrong_dialogues_are_named(source, data, lines, facts, said):
    write_dialogues(source, lines, facts)
    assert said in refusal("dstc2", data, source)


def test_a_fold_needs_more_problems_than_are_held_out(source, data):
    write_problems(source, {"fold0_train": 150, "fold0_test": 1})
    said = refusal("mawps/fold0", data, source)
    assert "mawps has 150 training examples, of which the last 150 are for" in said


def test_dialogues_are_read_in_the_columns_that_are_declared(source, data):
    write_dialogues(source)
    features = prepare_table("dstc2", data, source).info.features
    assert sorted(features) == sorted(Dstc2.COLUMNS)
