"""Builders of published corpora: their splits, checksums and addresses."""

import itertools
import json
import re
import tracemalloc
from random import Random

import pytest
import tensorflow_datasets as tfds

from configs.characters.ptb import get_config
from data import registry
from data.corpora import text_files
from data.corpora.download import ALGORITHMS, ArchiveStore, RemoteArchive, RemoteFile
from data.corpora.text import enwik8, lm1b, pg19, ptb, tinyshakespeare, wikitext
from data.corpora.translation import iwslt14, multi30k, ted_hrlr, wmt14
from data.token_writer import SideWriter
from data.tokenizers.build import train_tokenizer
from data.tokenizers.symbols import ByteTokenizer
from helpers.loopback import checksum, pack, serving, text, write
from helpers.served_corpora import check, prepare, served
from helpers.small_corpora import CORPORA, small_multi30k, small_wmt14
from utils.errors import UserError

BUILDERS = (
    *("enwik8", "iwslt14", "lm1b", "multi30k", "pg19", "ptb_char", "ted_hrlr"),
    *("text8", "tinyshakespeare", "wikitext103", "wmt14"),
)
SINGLE_FILES = (enwik8.Enwik8, enwik8.Text8, tinyshakespeare.Tinyshakespeare)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def wmt(monkeypatch, server):
    """Serves a small WMT14 English-French."""
    return served(small_wmt14, monkeypatch, server)


def test_downloads_are_reused_for_the_other_direction(wmt, tmp_path, server):
    prepare("wmt14/en-fr", tmp_path)
    asked = sorted(server.asked)
    assert asked == sorted(wmt.files)
    corpus = prepare("wmt14/fr-en", tmp_path)
    assert sorted(server.asked) == asked
    assert next(corpus.read("test")) == ("fr & Co.", "en & Co.")


def test_german_has_three_parts_of_training_and_a_split_a_newstest(
    monkeypatch, server, tmp_path
):
    case = small_wmt14(monkeypatch, server.address, "wmt14/de-en")
    server.files |= case.files
    corpus = prepare("wmt14/de-en", tmp_path)
    check(corpus, case)
    assert corpus.splits["train"] == 2 * 3
    assert not {"training-parallel-un.tgz", "training-giga-fren.tar"} & {*server.asked}


def test_the_billion_words_are_tested_on_other_sentences_than_validated():
    names = [*itertools.chain.from_iterable(lm1b.SPLITS.values())]
    assert len(set(names)) == len(names) == 99 + 1 + 1
    assert lm1b.SPLITS["test"][0].endswith("news.en.heldout-00000-of-00050")
    assert lm1b.SPLITS["validation"][0].endswith("news.en.heldout-00001-of-00050")
    assert lm1b.SPLITS["train"][0].endswith("/news.en-00001-of-00100")
    assert lm1b.SPLITS["train"][-1].endswith("/news.en-00099-of-00100")


def test_the_later_test_sets_of_captions_are_those_of_the_language(
    monkeypatch, server, tmp_path
):
    case = small_multi30k(monkeypatch, server.address)
    czech = {
        f"{name[:-5]}cs.gz": content
        for name, content in case.files.items()
        if name.endswith("fr.gz") and "2017" not in name
    }
    for name in czech:
        content = case.plain[f"{name[:-5]}fr"]
        monkeypatch.setitem(multi30k.CHECKSUMS[name[:-6]], "cs", checksum(content))
    server.files |= case.files | czech
    splits = prepare("multi30k/cs-de", tmp_path).splits
    assert [*splits] == ["train", "validation", "test", "test_2018_flickr"]
    del case.plain["test_2017_mscoco.de"]
    source = write(tmp_path / "source", case.plain)
    splits = prepare("multi30k/de-fr", tmp_path, source).splits
    assert [*splits][2:] == ["test", "test_2017_flickr", "test_2018_flickr"]


def test_a_missing_checksum_is_reported_and_recorded(
    monkeypatch, server, tmp_path, capfd
):
    case = CORPORA["iwslt14"](monkeypatch, server.address)
    server.files |= case.files
    prepare(case.name, tmp_path)
    found = checksum(case.files["de-en.tgz"])
    assert f"de-en.tgz has sha256 {found}: no checksum is" in capfd.readouterr().err
    [record] = tmp_path.glob("data/iwslt14/de-en/1.0.0/metadata.json")
    assert json.loads(record.read_text()) == {"de-en.tgz": found}


def test_a_line_of_enwik8_and_its_end_are_as_many_tokens_as_bytes(
    monkeypatch, server, tmp_path
):
    case = CORPORA["enwik8"](monkeypatch, server.address)
    server.files |= case.files
    corpus = prepare(case.name, tmp_path)
    found = {
        split: b"\n".join(line.encode() for (line,) in corpus.read(split))
        for split in corpus.splits
    }
    assert b"".join(found.values()) == case.plain["enwik8"]
    encode = ByteTokenizer().encode
    tokens = [len(encode(line)) + 1 for (line,) in corpus.read("train")]
    assert sum(tokens) == len(found["train"]) + 1  # which ends within a line


def test_a_token_of_tinyshakespeare_is_a_character(monkeypatch, server, tmp_path):
    case = served(CORPORA["tinyshakespeare"], monkeypatch, server)
    content = case.plain["input.txt"].decode()
    corpus = prepare(case.name, tmp_path)
    assert [*corpus.splits] == ["train", "validation"]
    found = {
        split: "\n".join(line for (line,) in corpus.read(split))
        for split in corpus.splits
    }
    assert found["train"] + found["validation"] + "\n" == content
    assert len(found["train"]) == int(0.9 * len(content))


@pytest.mark.parametrize("length", range(14, 30))
def test_a_cut_moves_by_less_than_a_character_and_loses_nothing(length):
    content = ("a\nß€😀" * 4).encode()[:length].decode(errors="ignore").encode()
    parts = enwik8.cut(content, 5)
    assert b"".join(parts.values()) == content
    assert all(part.decode() for part in parts.values())
    assert 0 <= 5 - len(parts["test"]) <= 3
    assert 0 <= len(parts["train"]) - (len(content) - 10) <= 3


def test_a_text_too_short_for_its_splits_is_refused():
    with pytest.raises(UserError, match="a text of 6 bytes leaves no training split"):
        enwik8.cut(b"abcdef", 3)


def test_large_files_pass_in_little_memory(tmp_path, server):
    noise = Random(0).randbytes(2**23).hex()
    content = text(*(noise[i : i + 63] for i in range(0, len(noise), 63)))  # 17 MB
    archive = pack("large.tgz", {"large/text": content})
    server.files["large.tgz"] = archive
    source = RemoteArchive(f"{server.address}/large.tgz", checksum(archive))
    file = RemoteFile(source, "large/text", checksum(content))
    store = ArchiveStore(None, tmp_path, {})
    tracemalloc.start()
    try:
        path = store.fetch([file])[file]
        number = sum(1 for _ in itertools.islice(text_files.read_lines(path), 20_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert number == 20_000
    assert path.stat().st_size == len(content)
    assert peak < 8 * 2**20


def test_every_pinned_checksum_is_one():
    found = [
        *(archive.checksum for archive, _ in wmt14.TRAIN.values()),
        *(x.ARCHIVE.checksum for x in (lm1b, ted_hrlr)),
        *ptb.PtbChar.CHECKSUMS.values(),
        *wikitext.Wikitext103.CHECKSUMS.values(),
        *(builder.FILE.checksum for builder in SINGLE_FILES),
        *(root for _, root in pg19.SPLITS.values()),
        wmt14.NEWS.checksum,
        *itertools.chain(*(sums.values() for sums in multi30k.CHECKSUMS.values())),
    ]
    assert len(set(found)) == len(found) == 5 + 2 + 6 + 3 + 3 + 1 + 22
    lengths = set(ALGORITHMS)
    assert all(re.fullmatch("[0-9a-f]+", c) and len(c) in lengths for c in found)


def test_every_builder_has_its_name_a_version_and_keeps_the_published_order():
    assert registry.CORPORA.keys() >= {*BUILDERS}
    for name in BUILDERS:
        registry.register(name)
        builder = tfds.builder_cls(name)
        assert builder.__module__ == registry.CORPORA[name]  # not TFDS's of that name
        assert builder.VERSION
        assert "source_dir" in builder.__doc__


def test_a_token_of_penn_treebank_as_characters_is_a_character(
    monkeypatch, server, tmp_path
):
    served(CORPORA["ptb_char"], monkeypatch, server)
    texts = [text for (text,) in prepare("ptb_char", tmp_path).read("train")]
    kind = get_config("rnn").data.tokenizer
    side = SideWriter(train_tokenizer(kind, texts, vocab_size=100, min_count=1))
    side.add_all(texts)
    assert side.counts["characters"] == len(side.tokens) > 10
    assert len(set(side.tokens)) > 5


def test_addresses_are_those_of_public_hosts():
    addresses = [wmt14.NEWS.url, *(found.url for found, _ in wmt14.TRAIN.values())]
    addresses += [ptb.PtbChar.URL, pg19.ADDRESS, wikitext.Wikitext103.URL]
    addresses += [builder.FILE.archive.url for builder in SINGLE_FILES]
    addresses += [module.ARCHIVE.url for module in (lm1b, ted_hrlr, iwslt14)]
    for address in addresses:
        assert re.match(r"https?://([\w-]+\.)+(org|net|com|cz|eu)/", address)
