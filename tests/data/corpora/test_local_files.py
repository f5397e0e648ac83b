"""Corpora of a user's own files, and the preparation of a corpus."""

import errno
import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data import tfds_patches
from data.corpora import local_files
from data.corpora.text import plain_text
from data.corpus import open_corpus
from utils import locks
from utils.errors import UserError

ENGLISH = ["A man.", "Two\u2028dogs. ", "", " A red\x85\rbus."]
GERMAN = ["Ein Mann.", "Zwei Hunde.", "(leer)", "Ein roter Bus."]
PAIRS = list(zip(ENGLISH, GERMAN, strict=True))
DOCUMENTS = ["a", "a", "b", "a"]


def write(path, content):
    """Writes lines, bytes or text, packed by the name's suffix."""
    if isinstance(content, list):
        content = "".join(f"{line}\n" for line in content)
    raw = content if isinstance(content, bytes) else content.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def source(tmp_path):
    """Writes a small parallel corpus with every kind of name and packing."""
    folder = tmp_path / "source"
    for stem in ("train", "dev", "test", "test_2017", "news-2.tc"):
        suffix = ".gz" if stem == "dev" else ""
        write(folder / f"{stem}.en{suffix}", [f"{stem}: {line}" for line in ENGLISH])
        write(folder / f"{stem}.de", GERMAN)
    write(folder / "mono.en", ["one-sided, so no split"])
    return folder


@pytest.mark.parametrize(
    ("sources", "prepared"),
    [
        ("[1] *?", "data"),
        ("a\\b", "data"),
        *[(name, name) for name in ("a,b=c@2-of-3 ", "{x}%d#\u00e9")],
    ],
)
def test_folders_may_have_odd_names(tmp_path, source, sources, prepared):
    odd = source.rename(tmp_path / sources)
    for _ in range(2):  # prepared, then opened
        corpus = open_corpus("parallel_text/en-de", tmp_path / prepared / "d", odd)
        assert [target for _, target in corpus.read("train")] == GERMAN


def test_lines_and_files_of_windows_are_read_as_those_of_others(tmp_path, data):
    folder = tmp_path / "source"
    english, german = "Hello world\nGood day\n\nLong", "Hallo Welt\nGuten Tag\n\nLang"
    windows = b"\xef\xbb\xbf" + english.replace("\n", "\r\n").encode()
    for split in ("train", "valid"):
        write(folder / f"{split}.en", windows)
        write(folder / f"{split}.de", german)
    corpus = open_corpus("parallel_text/en-de", data, folder)
    pairs = list(zip(english.split("\n"), german.split("\n"), strict=True))
    assert list(corpus.read("train")) == pairs


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    write(folder / "train.txt.gz", ENGLISH)
    write(folder / "valid.txt", "no end of the last line")
    return folder


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def refusal(*args):
    """Returns the one-line message of the error that `open_corpus` raises."""
    with pytest.raises(UserError) as caught:
        open_corpus(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(Path(args[1]).rglob("dataset_info.json"))
    return message


def keys(folder):
    return sorted(path.parent.parent.name for path in folder.rglob("features.json"))


class TestParallel:
    def test_all_pairs_come_back_as_they_are_and_in_order(self, source, data):
        corpus = open_corpus("parallel_text/en-de", data, source)
        assert (corpus.kind, corpus.languages) == ("parallel", ("en", "de"))
        named = {"train": "train", "validation": "dev", "test": "test"}
        named |= {"news_2_tc": "news-2.tc", "test_2017": "test_2017"}
        assert corpus.splits == dict.fromkeys(named, 4)
        assert list(corpus.splits) == list(named)
        for split, stem in named.items():
            pairs = [(f"{stem}: {english}", german) for english, german in PAIRS]
            assert list(corpus.read(split)) == pairs

    @pytest.mark.parametrize("block", [1, 2, 99])
    def test_a_range_of_a_split_is_read_alone(self, source, data, monkeypatch, block):
        monkeypatch.setattr("data.corpus.BLOCK_EXAMPLES", block)
        corpus = open_corpus("parallel_text/en-de", data, source)
        whole = list(corpus.read("test"))
        for start, stop in [(0, 4), (1, 3), (3, 9), (2, None), (2, 2)]:
            assert list(corpus.read("test", start, stop)) == whole[start:stop]

    def test_another_process_can_read_it_too(self, source, data):
        corpus = open_corpus("parallel_text/en-de", data, source)
        for again in (corpus, open_corpus("parallel_text/en-de", data)):
            copy = pickle.loads(pickle.dumps(again))
            assert copy == corpus
            assert list(copy.read("train")) == list(corpus.read("train"))

    def test_any_names_of_languages_do_and_the_first_is_the_source(self, data):
        write(data / "raw/train.de_AT", GERMAN)
        write(data / "raw/train.9", ENGLISH)
        corpus = open_corpus("parallel_text/de_AT-9", data, data / "raw")
        assert corpus.languages == ("de_AT", "9")
        assert list(corpus.read("train")) == [pair[::-1] for pair in PAIRS]

    def test_documents_come_with_their_lines(self, source, data):
        write(source / "train.doc.gz", DOCUMENTS)
        write(source / "train.pos", ["1", "2", "1", "7"])
        corpus = open_corpus("parallel_text/en-de", data, source)
        assert corpus.documents("train") == DOCUMENTS
        assert corpus.documents("test") is None
        assert next(corpus.read("train"))[1] == GERMAN[0]
        again = open_corpus("parallel_text/en-de", data)
        assert again.documents("train") == DOCUMENTS
        positions = again.builder.as_data_source("train")
        assert [row["pos"].decode() for row in positions] == ["1", "2", "1", "7"]

    def test_a_corpus_without_documents_says_so(self, source, data):
        corpus = open_corpus("parallel_text/en-de", data, source)
        assert corpus.documents("train") is None

    @pytest.mark.parametrize(
        ("name", "lines", "said"),
        [
            ("train.de", GERMAN[1:], "train.en has 4 lines and train.de has 3"),
            ("test.doc", DOCUMENTS[1:], "test.en has 4 lines and test.doc has 3"),
            ("dev.pos", [*"12345"], "dev.en.gz has 4 lines and dev.pos has 5"),
        ],
    )
    def test_files_of_different_lengths_are_refused(
        self, source, data, name, lines, said
    ):
        write(source / name, lines)
        assert said in refusal("parallel_text/en-de", data, source)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("train.de", "", "train.de is empty"),
            ("train.doc", "\n\n\n\n", "train.doc is empty"),
            ("test.en", b"a\nb\xc3\n", "test.en, line 2: not UTF-8 (invalid cont"),
            ("test.en", b"a\n\n\nb\xe4", "test.en, line 4: not UTF-8 (unexpected end"),
            ("dev.de.gz", [], "holds both dev.de and dev.de.gz"),
            ("valid.en", GERMAN, "holds valid.en but no valid.de"),
        ],
    )
    def test_bad_files_are_named(self, source, data, name, content, said):
        write(source / name, content)
        assert said in refusal("parallel_text/en-de", data, source)

    def test_no_split_can_be_called_like_all_splits_together(self, source, data):
        for language in ("en", "de"):
            write(source / f"all.{language}", GERMAN)
        said = refusal("parallel_text/en-de", data, source)
        assert "no split can be called 'all'" in said

    def test_two_files_for_one_split_are_refused(self, source, data):
        for language in ("en", "de"):
            write(source / f"val.{language}", GERMAN)
        message = refusal("parallel_text/en-de", data, source)
        assert "both dev.en and val.en" in message
        assert "'validation'" in message

    @pytest.mark.parametrize("kept", [1, 9, 30, -1])
    def test_a_gz_file_cut_short_is_called_damaged(self, source, data, kept):
        path = source / "dev.en.gz"
        path.write_bytes(path.read_bytes()[:kept])
        said = refusal("parallel_text/en-de", data, source)
        assert said.startswith(f"{path} is damaged or cut short (")

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ("en", "parallel_text/en does not name two languages"),
            ("en-de-fr", "does not name two languages"),
            ("en-en", "must differ"),
            (
                "en-doc",
                "and from the other files, doc, pos, seen",
            ),
            ("en-fr", "lacks training data: train.en, train.fr, valid.en, valid.fr"),
            ("en-000000000000", "lacks training data"),
        ],
    )
    def test_an_invalid_name_is_refused(self, source, data, config, said):
        if said.startswith("lacks"):
            shutil.rmtree(source)
            write(source / "README", ["nothing here"])
        assert said in refusal(f"parallel_text/{config}", data, source)


class TestPlain:
    def test_lines_are_read_unchanged(self, text, data):
        corpus = open_corpus("plain_text", data, text)
        assert (corpus.kind, corpus.languages) == ("text", ())
        assert corpus.splits == {"train": 4, "validation": 1}
        assert [line for (line,) in corpus.read("train")] == ENGLISH
        assert list(corpus.read("validation")) == [("no end of the last line",)]
        assert corpus.documents("train") is None

    def test_a_folder_is_a_split_and_a_file_a_document(self, text, data):
        texts = {"b.txt": " b\n\n", "a.txt.gz": "a\r\n", "c.md": "no text"}
        for name, content in texts.items():
            write(text / "test" / name, content)
        corpus = open_corpus("plain_text", data, text)
        assert list(corpus.read("test")) == [("a\r\n",), (" b\n\n",)]

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("test/a.md", "text", "test is empty: it holds no .txt"),
            ("test/a.txt", "\n", "a.txt is empty"),
            ("train/a.txt", "text", "holds both train.txt.gz and train/, which"),
            ("dev.txt", "text", "holds both valid.txt and dev.txt"),
        ],
    )
    def test_bad_files_are_named(self, text, data, name, content, said):
        write(text / name, content)
        assert said in refusal("plain_text", data, text)

    def test_without_training_text_there_is_no_corpus(self, text, data):
        (text / "train.txt.gz").unlink()
        assert "lacks training data: train.txt, valid.txt (plain" in refusal(
            "plain_text", data, text
        )

    def test_a_broken_character_is_found_at_its_line_over_blocks(
        self, text, data, monkeypatch
    ):
        monkeypatch.setattr("data.corpora.local_files.BLOCK_BYTES", 3)
        write(text / "test.txt", "aé\nüö\néa\n")
        open_corpus("plain_text", data, text)
        write(text / "test.txt", "aé\nüö\né".encode()[:-1] + b"\nb\n")
        with pytest.raises(UserError, match=r"test.txt, line 3: not UTF-8"):
            open_corpus("plain_text", data, text)


class TestNamedCorpora:
    def test_novels_are_a_line_a_book_in_order(self, data):
        for split in ("train", "valid", "test"):
            write(data / f"raw/{split}/b.txt.gz", "The\r\n end\u2003 \n\n")
            write(data / f"raw/{split}/a.txt", f"\n {split}\none ")
        corpus = open_corpus("novels", data, data / "raw")
        assert list(corpus.read("validation")) == [("valid one",), ("The end",)]
        assert corpus.splits == {"train": 2, "validation": 2, "test": 2}

    def test_pydocs_has_two_directions_and_documents(self, data):
        raw = data / "raw"
        for split in ("train", "valid", "test"):
            columns = {"en": ENGLISH, "fr": GERMAN, "doc": DOCUMENTS, "pos": [*"1234"]}
            if split != "train":
                columns["seen"] = [*"0010"]
            for field, lines in columns.items():
                write(raw / f"{split}.{field}.gz", lines)
        corpus = open_corpus("pydocs/fr-en", data, raw)
        assert corpus.languages == ("fr", "en")
        assert list(corpus.read("test")) == [pair[::-1] for pair in PAIRS]
        assert corpus.documents("validation") == DOCUMENTS
        seen = [row["seen"] for row in corpus.builder.as_data_source("test")]
        assert b"".join(seen) == b"0010"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("novels", "novels is not published anywhere: give --config.data.source"),
            ("pydocs/en-fr", "DIR, a folder that holds train.en, train.fr, valid.en"),
            ("parallel_text/en-de", "is not published anywhere"),
            ("pydocs/en-de", "pydocs has no config 'en-de'; it has en-fr, fr-en"),
            ("novels/short", "novels has no config 'short'"),
        ],
    )
    def test_a_missing_folder_is_reported_with_the_expected_files(
        self, data, name, said
    ):
        assert said in refusal(name, data)


class TestContent:
    def test_a_changed_file_is_another_corpus(self, text, data):
        before = open_corpus("plain_text", data, text)
        write(text / "valid.txt", "No end of the last line")  # of the same size
        after = open_corpus("plain_text", data, text)
        assert before.name != after.name
        assert next(after.read("validation")) == ("No end of the last line",)
        assert next(before.read("validation")) == ("no end of the last line",)

    def test_the_same_texts_in_another_folder_are_the_same_corpus(
        self, text, data, capfd
    ):
        first = open_corpus("plain_text", data, text)
        capfd.readouterr()
        other = text.parent / "other"
        write(other / "train.txt", ENGLISH)
        write(other / "val.txt.gz", "no end of the last line")
        assert open_corpus("plain_text", data, other) == first
        assert capfd.readouterr().err == ""

    def test_line_ends_and_files_are_part_of_the_content(self, data):
        for number, names in enumerate([["a", "b"], ["ab"]]):
            for name in names:
                write(data / f"{number}/train/{name}.txt", name)
        for number in (0, 1):
            open_corpus("plain_text", data, data / f"{number}")
        assert len(keys(data / "plain_text")) == 2

    def test_files_that_did_not_change_are_read_once(self, text, data, monkeypatch):
        monkeypatch.setattr(local_files, "SETTLED", -1)
        first = open_corpus("plain_text", data, text)
        monkeypatch.setattr("data.corpora.local_files.hash_and_count", None)
        assert open_corpus("plain_text", data, text) == first

    def test_files_changed_just_now_are_read_again(self, text, data, monkeypatch):
        first = open_corpus("plain_text", data, text)
        same = [["same", 0, 0, 9e18]]
        monkeypatch.setattr("data.corpora.local_files.fingerprint", lambda layout: same)
        write(text / "valid.txt", "changed")
        assert open_corpus("plain_text", data, text) != first

    @pytest.mark.parametrize("removed", ["folder", "content"])
    def test_a_version_outlives_its_folder(self, source, data, removed):
        first = open_corpus("parallel_text/en-de", data, source)
        write(source / "test.de", ["another", *GERMAN[1:]])
        second = open_corpus("parallel_text/en-de", data, source)
        shutil.rmtree(source)
        if removed == "content":
            source.mkdir()
        assert open_corpus("parallel_text/en-de", data, source) == second
        assert open_corpus(first.name, data, source) == first
        with pytest.raises(UserError, match="several versions") as caught:
            open_corpus("parallel_text/en-de", data)
        assert f"{first.name}" in str(caught.value)
        assert f"{second.name}" in str(caught.value)
        with pytest.raises(UserError, match="is no folder, or empty"):
            open_corpus("parallel_text/en-de", data, source / "nowhere")

    def test_without_a_folder_the_only_copy_is_taken(self, text, data):
        corpus = open_corpus("plain_text", data, text)
        (data / "plain_text/sources.json").write_text("damaged")
        assert open_corpus("plain_text", data) == corpus
        assert open_corpus("plain_text", data, text) == corpus

    def test_files_that_change_meanwhile_make_no_corpus(self, text, data, monkeypatch):
        read = plain_text.PlainText.read

        def changing(self, paths, whole):
            yield from read(self, paths, whole)
            write(text / "valid.txt", "other")

        monkeypatch.setattr(plain_text.PlainText, "read", changing)
        assert "files changed while they were read" in refusal("plain_text", data, text)


class TestPreparing:
    @pytest.mark.parametrize("at", ["lock", "examples"])
    def test_a_full_disk_leaves_nothing_half_made(self, text, data, monkeypatch, at):
        def full(*args, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            if at == "lock":
                patch.setattr(locks, "acquire", full)
            else:
                patch.setattr(plain_text.PlainText, "read", full)
            said = refusal("plain_text", data, text)
        assert said.startswith("no space left to prepare plain_text/")
        assert not list(data.rglob("*.array_record*"))
        assert open_corpus("plain_text", data, text).splits["train"] == 4

    def test_a_second_one_waits_and_then_finds_the_corpus(
        self, text, data, capfd, monkeypatch
    ):
        begun, go_on = threading.Event(), threading.Event()
        read = plain_text.PlainText.read

        def slowly(self, paths, whole):
            begun.set()
            assert go_on.wait(20)
            return read(self, paths, whole)

        monkeypatch.setattr(plain_text.PlainText, "read", slowly)
        found = []
        workers = [
            threading.Thread(
                target=lambda: found.append(open_corpus("plain_text", data, text))
            )
            for _ in range(2)
        ]
        workers[0].start()
        assert begun.wait(20)
        workers[1].start()
        said = ""
        for _ in range(200):
            said += capfd.readouterr().err
            if "waiting for" in said:
                break
            time.sleep(0.05)
        go_on.set()
        for worker in workers:
            worker.join(20)
        said += capfd.readouterr().err
        assert f"waiting for process {os.getpid()} on " in said
        assert said.count("preparing plain_text") == 1
        assert len(found) == 2
        assert found[0] == found[1]
        assert not list(data.glob(".*.lock"))

    def test_the_lock_of_a_killed_process_is_taken_over(self, text, data, capfd):
        name = open_corpus("plain_text", data, text).name
        shutil.rmtree(data)
        data.mkdir()
        version = plain_text.PlainText.VERSION
        lock = data / f".{name.replace('/', '-')}-{version}.lock"
        code = "import fcntl, sys, time; file = open(sys.argv[1], 'a')\n"
        code += "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
        command = [sys.executable, "-c", code, str(lock)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            killer = threading.Timer(0.5, holder.send_signal, [signal.SIGKILL])
            killer.start()
            corpus = open_corpus("plain_text", data, text)
        assert corpus.name == name
        assert "waiting for another process, which prepares" in capfd.readouterr().err

    def test_where_there_are_no_locks_it_goes_on(self, text, data, monkeypatch):
        def unsupported(*args):
            cause = OSError(errno.ENOLCK, "No locks available")
            raise locks.portalocker.LockException(cause) from cause

        monkeypatch.setattr(locks.portalocker, "lock", unsupported)
        assert open_corpus("plain_text", data, text).splits["train"] == 4

    def test_progress_is_printed_on_a_terminal(self, text, data, capsys, monkeypatch):
        monkeypatch.setattr(tfds_patches, "REPORT_SECONDS", 0)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        open_corpus("plain_text", data, text)
        assert "  train: 3 examples ...\n" in capsys.readouterr().err
