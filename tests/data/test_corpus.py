"""Opening and preparing corpora, and errors of both."""

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from data.corpora import download
from data.corpora.builders import STEMS
from data.corpora.text import ptb, wikitext
from data.corpora.translation import multi30k
from data.corpus import open_corpus
from data.registry import CORPORA
from helpers.served_corpora import refusal
from utils.errors import UserError

# One line holds a separator that is not "\n", one ends in a space.
ENGLISH = ["A man.", "Two\u2028dogs. ", "A hat.", "A red\x85bus.", "A tree."]


GERMAN = ["Ein Mann.", "Zwei Hunde.", "Ein Hut.", "Ein roter Bus.", "Ein Baum."]


PAIRS = list(zip(ENGLISH, GERMAN, strict=True))


ARTICLE = "\n = Dogs = \n\n A dog is <unk> . \n\n Dogs bark . \n"


SENTENCES = " no it was n't <unk> \n N dogs said \n so \n it is \n N times N \n"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write(path, text):
    """Writes `text`, packed by the name's suffix."""
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def captions(tmp_path, monkeypatch):
    """Writes a tiny Multi30k and registers its checksums."""

    def make(folder="source", suffix=".gz", english=ENGLISH, german=GERMAN):
        folder = tmp_path / folder
        folder.mkdir()
        for stem in multi30k.SPLITS.values():
            for language, lines in {"en": english, "de": german}.items():
                text = "\n".join([f"{stem}: {line}" for line in lines]) + "\n"
                name = f"{stem}.{language}"
                write(folder / f"{name}{suffix}", text)
                monkeypatch.setitem(multi30k.CHECKSUMS[stem], language, sha256(text))
        return folder

    return make


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Writes a tiny Penn Treebank and registers its checksums."""
    folder = tmp_path / "words"
    folder.mkdir()
    for split, stem in STEMS.items():
        write(folder / f"ptb.{stem}.txt", SENTENCES)
        monkeypatch.setitem(ptb.Ptb.CHECKSUMS, split, sha256(SENTENCES))
    return folder


@pytest.fixture
def articles(monkeypatch):
    for split in STEMS:
        monkeypatch.setitem(wikitext.Wikitext2.CHECKSUMS, split, sha256(ARTICLE))


def pairs_of(stem):
    return [(f"{stem}: {english}", f"{stem}: {german}") for english, german in PAIRS]


def test_a_parallel_corpus_comes_back_whole_and_in_order(captions, tmp_path):
    corpus = open_corpus("multi30k/en-de", tmp_path / "data", captions())
    assert (corpus.name, corpus.version) == ("multi30k/en-de", "1.0.0")
    assert (corpus.kind, corpus.languages) == ("parallel", ("en", "de"))
    assert corpus.splits == {"train": 5, "validation": 5, "test": 5}
    for split, stem in multi30k.SPLITS.items():
        assert list(corpus.read(split)) == pairs_of(stem)


def test_the_config_says_which_language_is_the_source(captions, tmp_path):
    corpus = open_corpus("multi30k/de-en", tmp_path / "data", captions())
    assert corpus.languages == ("de", "en")
    assert next(corpus.read("test")) == pairs_of("test_2016_flickr")[0][::-1]


def test_plain_files_and_gz_files_give_the_same_corpus(captions, tmp_path):
    packed = open_corpus("multi30k/en-de", tmp_path / "a", captions("packed", ".gz"))
    plain = open_corpus("multi30k/en-de", tmp_path / "b", captions("plain", ""))
    assert list(packed.read("train")) == list(plain.read("train"))
    assert packed == plain


def test_order_is_kept_over_several_shards(captions, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tensorflow_datasets.core.utils.shard_utils.ShardConfig.get_number_shards",
        lambda *args: 3,
    )
    monkeypatch.setattr("data.corpus.BLOCK_EXAMPLES", 2)
    corpus = open_corpus("multi30k/en-de", tmp_path / "data", captions())
    assert len(list((tmp_path / "data").rglob("*train.array_record*"))) == 3
    assert list(corpus.read("train")) == pairs_of("train")


def test_a_prepared_corpus_needs_its_source_no_more(captions, tmp_path, capfd):
    source = captions()
    first = open_corpus("multi30k/en-de", tmp_path / "data", source)
    assert capfd.readouterr().err.startswith("preparing multi30k/en-de in ")
    shutil.rmtree(source)
    again = open_corpus("multi30k/en-de", tmp_path / "data")
    assert list(again.read("train")) == list(first.read("train"))
    assert capfd.readouterr() == ("", "")


def test_preparing_reports_its_begin_and_end_on_standard_error(
    captions, tmp_path, capfd
):
    open_corpus("multi30k/en-de", tmp_path / "data", captions())
    output = capfd.readouterr()
    assert output.out == ""
    begins, ends = output.err.splitlines()
    assert begins == f"preparing multi30k/en-de in {tmp_path / 'data'} ..."
    assert ends.startswith("prepared multi30k/en-de in ")
    assert ends.endswith(" s: 5 train, 5 validation, 5 test")


def test_folders_may_be_given_relative_to_home(captions, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    captions()
    open_corpus("multi30k/en-de", "~/data", "~/source")
    assert (tmp_path / "data/multi30k/en-de/1.0.0").is_dir()


def test_the_penn_treebank_is_one_example_a_line(words, tmp_path):
    corpus = open_corpus("ptb", tmp_path / "data", words)
    assert (corpus.kind, corpus.languages) == ("text", ())
    assert list(corpus.splits) == ["train", "validation", "test"]
    lines = ["no it was n't <unk>", "N dogs said", "so", "it is", "N times N"]
    assert list(corpus.read("validation")) == [(line,) for line in lines]


@pytest.mark.parametrize("style", ["tokens", "txt", "zip"])
def test_wikitext_keeps_its_blank_lines_in_every_packing(articles, tmp_path, style):
    source = tmp_path / "source"
    source.mkdir()
    if style == "zip":
        with zipfile.ZipFile(source / "wikitext-2-v1.zip", "w") as archive:
            for stem in STEMS.values():
                archive.writestr(f"wikitext-2/wiki.{stem}.tokens", ARTICLE)
    else:
        name = {"tokens": "wiki.{stem}.tokens", "txt": "{stem}.txt"}[style]
        for stem in STEMS.values():
            write(source / name.format(stem=stem), ARTICLE)
    corpus = open_corpus("wikitext2", tmp_path / "data", source)
    lines = ["", "= Dogs =", "", "A dog is <unk> .", "", "Dogs bark ."]
    assert list(corpus.read("train")) == [(line,) for line in lines]


def test_a_split_that_does_not_exist_is_refused_before_reading(words, tmp_path):
    corpus = open_corpus("ptb", tmp_path / "data", words)
    with pytest.raises(UserError, match=r"no split 'valid'; .*train, validation, test"):
        corpus.read("valid")


def test_an_unknown_corpus_gets_the_names_that_are_close(tmp_path):
    message = refusal("multi30", tmp_path)
    assert "unknown corpus 'multi30'; did you mean multi30k" in message
    assert ", ".join(sorted(CORPORA)) in message
    assert "wmt14_translate" in refusal("wmt14_trnslate/de-en", tmp_path)
    assert "unknown corpus 'no such/one'" in refusal("no such/one", tmp_path)


def test_an_unknown_config_gets_the_ones_there_are(tmp_path):
    message = refusal("multi30k/en-xx", tmp_path)
    assert "multi30k has no config 'en-xx'; it has en-de, en-fr" in message
    assert "it has cs-en, de-en" in refusal("wmt14_translate/de-eng", tmp_path)
    assert "others" in refusal("wikipedia/20200101.en", tmp_path)


def test_a_corpus_with_several_configs_wants_one_named(tmp_path):
    assert "multi30k needs a config" in refusal("multi30k", tmp_path)


def test_a_version_that_does_not_exist_is_refused(tmp_path):
    assert "only: 1.0.0" in refusal("ptb:3.2.1", tmp_path)


def test_a_corpus_without_text_is_refused_before_it_is_fetched(tmp_path):
    message = refusal("mnist", tmp_path)
    assert "neither a parallel corpus nor a text" in message
    assert "image, label" in message


def test_a_source_folder_that_does_not_exist_is_refused(tmp_path):
    assert "is no folder" in refusal("ptb", tmp_path, tmp_path / "nowhere")


def test_missing_source_files_are_named(captions, tmp_path):
    source = captions()
    (source / "val.de.gz").unlink()
    message = refusal("multi30k/en-de", tmp_path / "data", source)
    assert f"{source} lacks val.de (plain or .gz)" in message
    assert "raw/val.de.gz" in message
    message = refusal("wikitext2", tmp_path / "data", source)
    assert "wiki.valid.tokens" in message
    assert "wikitext-2-v1.zip" in message


def test_a_changed_source_file_is_refused_with_both_checksums(words, tmp_path):
    changed = SENTENCES.replace("dogs", "cats")
    write(words / "ptb.valid.txt", changed)
    message = refusal("ptb", tmp_path / "data", words)
    assert "checksum mismatch" in message
    assert str(words / "ptb.valid.txt") in message
    assert sha256(SENTENCES) in message
    assert sha256(changed) in message
    assert ptb.Ptb.URL.format(stem="valid") in message


@pytest.mark.parametrize("kept", [0, 5, -4])
def test_a_gz_file_cut_short_is_called_damaged(captions, tmp_path, kept):
    source = captions()
    path = source / "train.de.gz"
    path.write_bytes(path.read_bytes()[:kept])
    message = refusal("multi30k/en-de", tmp_path / "data", source)
    assert str(path) in message
    assert "damaged or cut short" in message or "checksum mismatch" in message


def test_a_zip_file_cut_short_is_called_damaged(articles, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("wikitext-2/wiki.train.tokens", ARTICLE)
    for content, fault in [
        (packed.getvalue()[:-9], "is damaged or cut short"),
        (packed.getvalue(), "lacks wikitext-2/wiki.test.tokens"),
    ]:
        (tmp_path / "wikitext-2-v1.zip").write_bytes(content)
        message = refusal("wikitext2", tmp_path / "data", tmp_path)
        assert f"wikitext-2-v1.zip {fault}" in message


def test_unequal_numbers_of_lines_are_refused(captions, tmp_path):
    source = captions(german=GERMAN[:-1])
    message = refusal("multi30k/en-de", tmp_path / "data", source)
    assert "train.en has 5 lines and train.de has 4" in message


def test_without_a_network_both_alternatives_are_named_at_once(
    nowhere, tmp_path, monkeypatch
):
    monkeypatch.setattr(ptb.Ptb, "URL", f"{nowhere}/{ptb.Ptb.MEMBER}")
    start = time.monotonic()
    message = refusal("ptb", tmp_path)
    assert time.monotonic() - start < 5
    assert f"cannot download {nowhere}/ptb." in message
    assert "--config.data.source_dir=DIR" in message
    assert "ptb.train.txt, ptb.valid.txt, ptb.test.txt" in message


def test_files_are_downloaded_when_no_folder_is_given(
    captions, serve, tmp_path, monkeypatch
):
    monkeypatch.setattr(multi30k, "ADDRESS", serve(captions()))
    corpus = open_corpus("multi30k/en-de", tmp_path / "data")
    assert list(corpus.read("train")) == pairs_of("train")


def test_an_archive_of_three_texts_is_downloaded_once(
    articles, serve, tmp_path, monkeypatch
):
    fetched = []
    retrieve = download.pooch.retrieve
    monkeypatch.setattr(
        download.pooch,
        "retrieve",
        lambda url, *args, **how: fetched.append(url) or retrieve(url, *args, **how),
    )
    with zipfile.ZipFile(tmp_path / "wikitext-2-v1.zip", "w") as archive:
        for stem in STEMS.values():
            archive.writestr(f"wikitext-2/wiki.{stem}.tokens", ARTICLE)
    url = f"{serve(tmp_path)}/wikitext-2-v1.zip"
    monkeypatch.setattr(wikitext.Wikitext2, "URL", url)
    assert open_corpus("wikitext2", tmp_path / "data").splits["test"] == 6
    assert fetched == [url]


def test_a_download_that_is_not_the_published_file_is_refused(
    words, serve, tmp_path, monkeypatch
):
    write(words / "ptb.test.txt", "moved\n")
    monkeypatch.setattr(ptb.Ptb, "URL", f"{serve(words)}/{ptb.Ptb.MEMBER}")
    message = refusal("ptb", tmp_path / "data")
    assert "checksum mismatch" in message
    assert "ptb.test.txt" in message
    assert not list((tmp_path / "data").rglob("dataset_info.json"))
    (words / "ptb.test.txt").unlink()
    assert "404" in refusal("ptb", tmp_path / "data")


def test_an_interrupted_preparation_is_not_used(words, tmp_path, monkeypatch):
    def interrupted(self, text):
        yield 0, {"text": "only this"}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ptb.Ptb, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_corpus("ptb", tmp_path / "data", words)
    assert open_corpus("ptb", tmp_path / "data", words).splits["train"] == 5


def test_the_remains_of_a_killed_preparation_are_not_used(words, tmp_path):
    open_corpus("ptb", tmp_path / "data", words)
    folder = tmp_path / "data/ptb"
    (folder / "1.0.0").rename(folder / "incomplete.ABCDEF_1.0.0")
    shutil.rmtree(words)
    assert "is no folder" in refusal("ptb", tmp_path / "data", words)


def test_a_prepared_folder_with_something_missing_is_refused(words, tmp_path):
    open_corpus("ptb", tmp_path / "data", words)
    folder = tmp_path / "data/ptb/1.0.0"
    shard = next(folder.glob("*train.array_record*"))
    content = shard.read_bytes()
    for damage in [content[:-1], content[:70_000], b""]:
        shard.write_bytes(damage)
        message = refusal("ptb", tmp_path / "data")
        assert f"{shard} does not hold its 5 records: remove {folder}" in message
    shard.unlink()
    assert "does not hold its 5 records" in refusal("ptb", tmp_path / "data")
    (folder / "dataset_info.json").unlink()
    assert f"{folder} is no prepared corpus" in refusal("ptb", tmp_path / "data")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"),
        RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; at byte 917504"),
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing_behind(
    words, tmp_path, monkeypatch, error
):
    def full(self, text):
        yield 0, {"text": "only this"}
        raise error

    monkeypatch.setattr(ptb.Ptb, "_generate_examples", full)
    message = refusal("ptb", tmp_path / "data", words)
    assert "no space left to prepare ptb" in message
    assert str(tmp_path / "data") in message
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_a_folder_that_cannot_be_written_is_named(words, tmp_path):
    (tmp_path / "file").touch()
    message = refusal("ptb", tmp_path / "file", words)
    assert f"cannot prepare ptb in {tmp_path / 'file'}: " in message


def test_a_bug_while_preparing_is_not_called_the_users_mistake(
    words, tmp_path, monkeypatch
):
    monkeypatch.setattr(ptb.Ptb, "_generate_examples", lambda self, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_corpus("ptb", tmp_path / "data", words)


def test_two_processes_may_prepare_the_same_corpus(words, tmp_path, monkeypatch):
    open_corpus("ptb", tmp_path / "faster", words)
    generate = ptb.Ptb._generate_examples

    def overtaken(self, text):
        yield from generate(self, text)
        other = tmp_path / "data/ptb/1.0.0"
        shutil.copytree(tmp_path / "faster/ptb/1.0.0", other, dirs_exist_ok=True)

    monkeypatch.setattr(ptb.Ptb, "_generate_examples", overtaken)
    corpus = open_corpus("ptb", tmp_path / "data", words)
    assert len(list(corpus.read("train"))) == 5


def test_a_copy_that_only_tensorflow_reads_is_refused(words, tmp_path):
    open_corpus("ptb", tmp_path, words)
    path = tmp_path / "ptb/1.0.0/dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    message = refusal("ptb", tmp_path)
    assert "only TensorFlow reads" in message
    assert "--config.data.dir" in message


def test_importing_corpora_does_not_import_tfds():
    code = "import sys, data.corpus; print('tensorflow_datasets' in sys.modules)"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    assert subprocess.check_output(command, cwd=root, text=True) == "False\n"
