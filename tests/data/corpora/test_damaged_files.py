"""Files and archives that are damaged, short or wrong are refused in one line."""

import contextlib

import pytest

from data.corpora import text_files
from data.corpora.download import RemoteArchive, extract
from data.corpora.text import ptb
from data.corpora.translation import wmt14
from helpers.loopback import checksum, gz, pack, serving, sgm, text, write
from helpers.served_corpora import check, prepare, refusal_to_prepare, served
from helpers.small_corpora import CORPORA, small_pg19, small_wmt14
from utils.errors import UserError


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def wmt(monkeypatch, server):
    """Serves a small WMT14 English-French."""
    return served(small_wmt14, monkeypatch, server)


@contextlib.contextmanager
def refused(pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)


def with_part(wmt, monkeypatch, server, **changes):
    """Serves News Commentary with other files in it."""
    archive, path = wmt14.TRAIN["news-commentary-v9"]
    members = {
        path.format(pair="fr-en", language=code): content
        for code, content in changes.items()
    }
    content = pack(archive.name, members)
    server.files[archive.name] = content
    found = RemoteArchive(archive.url, checksum(content))
    monkeypatch.setitem(wmt14.TRAIN, "news-commentary-v9", (found, path))


def test_parallel_files_of_unequal_length_are_refused(
    wmt, monkeypatch, server, tmp_path
):
    with_part(wmt, monkeypatch, server, en=text("a", "b", "c", "d"), fr=text("a"))
    message = refusal_to_prepare(wmt.name, tmp_path)
    assert "news-commentary-v9.fr-en.en has 4 lines" in message
    assert "news-commentary-v9.fr-en.fr has 1" in message
    with refused("b has 1 lines and c has 3"):
        list(text_files.pair_lines(["x"], ["x", "y", "z"], ("b", "c")))


def test_a_file_that_is_not_utf8_is_named_with_the_line(
    wmt, monkeypatch, server, tmp_path
):
    latin = text("a", "b") + "é\n".encode("latin-1")
    with_part(wmt, monkeypatch, server, en=latin, fr=text("a", "b", "c"))
    message = refusal_to_prepare(wmt.name, tmp_path)
    assert "news-commentary-v9.fr-en.en is not UTF-8 in line 3" in message
    with refused("ptb.txt is not UTF-8 in line 3"):
        text_files.decode("ptb.txt", latin)


def test_an_empty_file_is_refused(wmt, monkeypatch, server, tmp_path):
    with_part(wmt, monkeypatch, server, en=b"", fr=text("a"))
    assert "news-commentary-v9.fr-en.en is empty" in refusal_to_prepare(
        wmt.name, tmp_path
    )
    path = tmp_path / "test.sgm"
    path.write_bytes(sgm("src", "en"))
    with refused("test.sgm is empty: it has no <seg"):
        list(text_files.read_sentences(path))
    with refused("the split train is empty"):
        list(text_files.drop_empty_pairs([("a", ""), ("", "b")], "train"))


def test_an_empty_small_corpus_is_refused(monkeypatch, server, tmp_path):
    case = CORPORA["ptb_char"](monkeypatch, server.address)
    case.plain["ptb.char.valid.txt"] = b"\n"
    monkeypatch.setitem(ptb.PtbChar.CHECKSUMS, "validation", checksum(b"\n"))
    source = write(tmp_path / "source", case.plain)
    assert "ptb.char.valid.txt is empty" in refusal_to_prepare(
        case.name, tmp_path, source
    )


def test_an_archive_that_lacks_a_file_is_refused(wmt, monkeypatch, server, tmp_path):
    with_part(wmt, monkeypatch, server, en=text("a"))
    message = refusal_to_prepare(wmt.name, tmp_path)
    assert message.endswith(
        "training-parallel-nc-v9.tgz lacks training/news-commentary-v9.fr-en.fr: "
        "fetch it again"
    )


@pytest.mark.parametrize("name", ["a.tgz", "a.tar", "a.zip"])
def test_an_archive_cut_short_is_called_damaged(name, tmp_path):
    noise = checksum(b"").encode() * 999
    members = {f"{n}": noise[n:] + bytes(range(256)) * 99 for n in range(3)}
    path = tmp_path / name
    content = pack(name, members)
    path.write_bytes(content[: len(content) // 2])
    with refused(f"{name} is damaged or cut short"):
        extract(path, members, tmp_path / "to")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("kept", [5, 20, -4])
def test_a_gz_file_cut_short_is_called_damaged(tmp_path, kept):
    path = tmp_path / "giga.en.gz"
    path.write_bytes(gz(text("one", "two", "three"))[:kept])
    with refused(r"giga.en.gz is damaged or cut short \("):
        list(text_files.read_lines(path))


def test_a_wrong_book_or_number_of_books_is_refused(monkeypatch, server, tmp_path):
    case = small_pg19(monkeypatch, server.address)
    source = write(tmp_path / "source", case.plain)
    (source / "train/10.txt").write_bytes(b"Another book.\n")
    message = refusal_to_prepare("pg19", tmp_path, source)
    assert "checksum mismatch: the 3 books of the split train have together" in message
    (source / "train/10.txt").unlink()
    message = refusal_to_prepare("pg19", tmp_path, source)
    assert "2 books of the split train instead of 3" in message


def test_an_invalid_listing_is_refused(monkeypatch, server, tmp_path):
    small_pg19(monkeypatch, server.address)
    server.files["o"] = b"<html>"
    assert f"cannot list {server.address}/books/train" in refusal_to_prepare(
        "pg19", tmp_path
    )


def test_nothing_is_extracted_from_a_damaged_archive_without_a_checksum(
    monkeypatch, server, tmp_path
):
    case = CORPORA["iwslt14"](monkeypatch, server.address)
    content = case.files["de-en.tgz"]
    wrong = content[:-8] + bytes(4) + content[-4:]  # gzip's own checksum
    source = write(tmp_path / "source", {"de-en.tgz": wrong})
    for _ in range(2):
        message = refusal_to_prepare(case.name, tmp_path, source)
        assert "de-en.tgz is damaged or cut short (CRC check failed" in message
    assert not list(tmp_path.glob("data/downloads/**/*.xml*"))
    (source / "de-en.tgz").write_bytes(content)
    check(prepare(case.name, tmp_path, source), case)
