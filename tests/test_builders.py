import contextlib
import itertools
import json
import re
import tracemalloc
from random import Random

import pytest
import tensorflow_datasets as tfds
from loopback import checksum, gz, pack, serving, sgm, text, write
from small_corpora import CORPORA, small_multi30k, small_pg19, small_wmt14

from data.builders import (
    archives,
    enwik8,
    iwslt14,
    lines,
    lm1b,
    multi30k,
    pg19,
    ptb_char,
    sources,
    ted_hrlr,
    text8,
    wikitext103,
    wmt14,
)
from data.builders.published import Published, Store
from data.corpora import open_corpus, own_corpora
from data.tokenizers import ByteTokenizer
from errors import UserError

BUILDERS = (
    *(enwik8, iwslt14, lm1b, multi30k, pg19, ptb_char, ted_hrlr, text8),
    *(wikitext103, wmt14),
)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture(params=sorted(CORPORA))
def case(request, monkeypatch, server):
    """A small corpus that stands on the server."""
    made = CORPORA[request.param](monkeypatch, server.address)
    server.files |= made.files
    return made


@pytest.fixture
def wmt(monkeypatch, server):
    """WMT14 of French."""
    made = small_wmt14(monkeypatch, server.address)
    server.files |= made.files
    return made


def prepare(name, tmp_path, source=None):
    return open_corpus(name, tmp_path / "data", source)


def refusal(name, tmp_path, source=None):
    """The message of the one-line error that preparing ends in; nothing is prepared."""
    with pytest.raises(UserError) as caught:
        prepare(name, tmp_path, source)
    message = str(caught.value)
    assert "\n" not in message
    assert not list(tmp_path.glob("data/**/dataset_info.json"))
    return message


def check(corpus, case):
    assert corpus.splits.keys() >= case.expected.keys()
    for split, examples in case.expected.items():
        assert list(corpus.read(split)) == examples
        assert corpus.splits[split] == len(examples)


def damage(content):
    """As long as before, but for some bytes in the middle."""
    middle = len(content) // 2
    return content[: middle - 9] + bytes(18) + content[middle + 9 :]


def test_a_corpus_is_downloaded_verified_unpacked_and_cut_as_published(case, tmp_path):
    corpus = prepare(case.name, tmp_path)
    assert corpus.name == case.name
    assert corpus.kind == ("parallel" if "/" in case.name else "text")
    if corpus.kind == "parallel":
        assert corpus.languages == tuple(case.name.partition("/")[2].split("-"))
    check(corpus, case)
    assert not list(tmp_path.rglob("*.part"))


def test_a_source_folder_may_hold_what_is_published(case, tmp_path, server):
    files = {name: content for name, content in case.files.items() if name != "o"}
    if case.name == "pg19":  # published one by one
        files = {f"{name}.gz": gz(content) for name, content in case.plain.items()}
    check(prepare(case.name, tmp_path, write(tmp_path / "source", files)), case)
    assert server.asked == []


def test_a_source_folder_may_hold_what_is_in_the_archives(case, tmp_path, server):
    check(prepare(case.name, tmp_path, write(tmp_path / "source", case.plain)), case)
    assert server.asked == []


def test_a_source_folder_may_hold_packed_files_without_their_folders(wmt, tmp_path):
    packed = {
        name.rpartition("/")[2].removesuffix(".gz"): content
        for name, content in wmt.plain.items()
    }
    packed = {
        f"{name}.gz": content if content[:2] == b"\x1f\x8b" else gz(content)
        for name, content in packed.items()
    }
    check(prepare(wmt.name, tmp_path, write(tmp_path / "source", packed)), wmt)


def test_a_changed_download_is_refused_in_one_line(case, tmp_path, server):
    server.files[case.damaged] = damage(case.files[case.damaged])
    message = refusal(case.name, tmp_path)
    assert re.search("checksum mismatch|damaged or cut short", message)
    assert case.damaged.partition("/")[0] in message
    assert re.search("--config.data.source_dir|again", message)
    server.files[case.damaged] = case.files[case.damaged]
    if case.name != "pg19":  # where no book is at fault alone
        check(prepare(case.name, tmp_path), case)


def test_a_changed_source_file_is_refused_with_both_checksums(wmt, tmp_path, server):
    source = write(tmp_path / "source", wmt.files)
    content = damage(wmt.files[wmt.damaged])
    (source / wmt.damaged).write_bytes(content)
    message = refusal(wmt.name, tmp_path, source)
    assert message == (
        f"checksum mismatch: {source / wmt.damaged} has sha256 {checksum(content)}, "
        f"expected {checksum(wmt.files[wmt.damaged])}; put the file of "
        f"{server.address}/{wmt.damaged} in a folder and give it as "
        "--config.data.source_dir"
    )


def test_a_download_that_breaks_off_is_never_taken_for_whole(case, tmp_path, server):
    server.cut.add(case.damaged)
    message = refusal(case.name, tmp_path)
    assert f"cannot download {server.address}/{case.damaged}" in message
    assert "--config.data.source_dir=DIR" in message
    assert not list(tmp_path.rglob(f"*{case.damaged}*"))
    server.cut.clear()
    check(prepare(case.name, tmp_path), case)


def test_an_address_out_of_reach_is_named_with_the_way_out(case, tmp_path, server):
    del server.files[case.damaged]
    message = refusal(case.name, tmp_path)
    assert f"cannot download {server.address}/{case.damaged} (HTTP Error 404" in message
    assert "--config.data.source_dir=DIR, a folder that holds" in message


def test_an_empty_source_folder_is_told_what_belongs_there(case, tmp_path):
    message = refusal(case.name, tmp_path, write(tmp_path / "source", {"other": b"x"}))
    if case.name == "pg19":
        assert "0 books of the split train instead of 3" in message
    else:
        assert f"source_dir {tmp_path / 'source'} lacks " in message
        assert "published at http://127.0.0.1" in message


def test_what_was_downloaded_serves_the_other_direction_too(wmt, tmp_path, server):
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
        monkeypatch.setitem(multi30k.CHECKSUMS, name[:-3], checksum(content))
    server.files |= case.files | czech
    splits = prepare("multi30k/cs-de", tmp_path).splits
    assert [*splits] == ["train", "validation", "test", "test_2018_flickr"]
    del case.plain["test_2017_mscoco.de"]
    source = write(tmp_path / "source", case.plain)
    splits = prepare("multi30k/de-fr", tmp_path, source).splits
    assert [*splits][2:] == ["test", "test_2017_flickr", "test_2018_flickr"]


def test_what_has_no_published_checksum_is_said_and_recorded(
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


@contextlib.contextmanager
def refused(pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)


def with_part(wmt, monkeypatch, server, **changes):
    """Publishes News Commentary with other files in it."""
    archive, path = wmt14.TRAIN["news-commentary-v9"]
    members = {
        path.format(pair="fr-en", language=code): content
        for code, content in changes.items()
    }
    content = pack(archive.name, members)
    server.files[archive.name] = content
    found = Published(archive.url, checksum(content))
    monkeypatch.setitem(wmt14.TRAIN, "news-commentary-v9", (found, path))


def test_parallel_files_of_unequal_length_are_refused(
    wmt, monkeypatch, server, tmp_path
):
    with_part(wmt, monkeypatch, server, en=text("a", "b", "c", "d"), fr=text("a"))
    message = refusal(wmt.name, tmp_path)
    assert "news-commentary-v9.fr-en.en has 4 lines" in message
    assert "news-commentary-v9.fr-en.fr has 1" in message
    with refused("b has 1 lines and c has 3"):
        list(lines.pair(["x"], ["x", "y", "z"], ("b", "c")))


def test_a_file_that_is_not_utf8_is_named_with_the_line(
    wmt, monkeypatch, server, tmp_path
):
    latin = text("a", "b") + "é\n".encode("latin-1")
    with_part(wmt, monkeypatch, server, en=latin, fr=text("a", "b", "c"))
    message = refusal(wmt.name, tmp_path)
    assert "news-commentary-v9.fr-en.en is not UTF-8 in line 3" in message
    with refused("ptb.txt is not UTF-8 in line 3"):
        sources.decode("ptb.txt", latin)


def test_an_empty_file_is_refused(wmt, monkeypatch, server, tmp_path):
    with_part(wmt, monkeypatch, server, en=b"", fr=text("a"))
    assert "news-commentary-v9.fr-en.en is empty" in refusal(wmt.name, tmp_path)
    path = tmp_path / "test.sgm"
    path.write_bytes(sgm("src", "en"))
    with refused("test.sgm is empty: it has no <seg"):
        list(lines.read_sentences(path))
    with refused("the split train is empty"):
        list(lines.filled([("a", ""), ("", "b")], "train"))


def test_an_empty_small_corpus_is_refused(monkeypatch, server, tmp_path):
    case = CORPORA["ptb_char"](monkeypatch, server.address)
    case.plain["ptb.char.valid.txt"] = b"\n"
    entry = ("ptb.char.valid.txt", checksum(b"\n"))
    monkeypatch.setitem(ptb_char.FILES, "validation", entry)
    source = write(tmp_path / "source", case.plain)
    assert "ptb.char.valid.txt is empty" in refusal(case.name, tmp_path, source)


def test_an_archive_that_lacks_a_file_is_refused(wmt, monkeypatch, server, tmp_path):
    with_part(wmt, monkeypatch, server, en=text("a"))
    message = refusal(wmt.name, tmp_path)
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
        archives.extract(path, members, tmp_path / "to")
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("kept", [5, 20, -4])
def test_a_gz_file_cut_short_is_called_damaged(tmp_path, kept):
    path = tmp_path / "giga.en.gz"
    path.write_bytes(gz(text("one", "two", "three"))[:kept])
    with refused(r"giga.en.gz is damaged or cut short \("):
        list(lines.read_lines(path))


def test_a_wrong_book_or_number_of_books_is_refused(monkeypatch, server, tmp_path):
    case = small_pg19(monkeypatch, server.address)
    source = write(tmp_path / "source", case.plain)
    (source / "train/10.txt").write_bytes(b"Another book.\n")
    message = refusal("pg19", tmp_path, source)
    assert "checksum mismatch: the 3 books of the split train have together" in message
    (source / "train/10.txt").unlink()
    message = refusal("pg19", tmp_path, source)
    assert "2 books of the split train instead of 3" in message


def test_a_listing_that_is_none_is_refused(monkeypatch, server, tmp_path):
    small_pg19(monkeypatch, server.address)
    server.files["o"] = b"<html>"
    assert f"cannot list {server.address}/books/train" in refusal("pg19", tmp_path)


def test_large_files_pass_in_little_memory(tmp_path, server):
    noise = Random(0).randbytes(2**23).hex()
    content = text(*(noise[i : i + 63] for i in range(0, len(noise), 63)))  # 17 MB
    archive = pack("large.tgz", {"large/text": content})
    server.files["large.tgz"] = archive
    source = Published(f"{server.address}/large.tgz", checksum(archive))
    store = Store(None, tmp_path, {})
    tracemalloc.start()
    try:
        path = store.members(source, {"large/text": checksum(content)})["large/text"]
        number = sum(1 for _ in itertools.islice(lines.read_lines(path), 20_000))
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
        *(
            checksum
            for x in (ptb_char, wikitext103)
            for _, checksum in x.FILES.values()
        ),
        *(x.CHECKSUM for x in (enwik8, text8)),
        *(root for _, root in pg19.SPLITS.values()),
        *(wmt14.NEWS.checksum, *multi30k.CHECKSUMS.values()),
    ]
    assert len(set(found)) == len(found) == 5 + 2 + 6 + 2 + 3 + 1 + 22
    lengths = set(sources.ALGORITHMS)
    assert all(re.fullmatch("[0-9a-f]+", c) and len(c) in lengths for c in found)


def test_every_builder_has_its_name_a_version_and_keeps_the_published_order():
    names = {module.__name__.rpartition(".")[2] for module in BUILDERS}
    assert names <= set(own_corpora())
    for module in BUILDERS:
        name = module.__name__.rpartition(".")[2]
        builder = tfds.builder_cls(name)
        assert builder.__module__ == f"data.builders.{name}"  # not TFDS's of that name
        assert builder.VERSION
        assert "source_dir" in builder.__doc__


def test_addresses_are_those_of_public_hosts():
    addresses = [wmt14.NEWS.url, *(found.url for found, _ in wmt14.TRAIN.values())]
    addresses += [module.ADDRESS for module in (enwik8, text8, ptb_char, pg19)]
    addresses += [m.ARCHIVE.url for m in (lm1b, ted_hrlr, iwslt14, wikitext103)]
    for address in addresses:
        assert re.match(r"https?://([\w-]+\.)+(org|net|com|cz|eu)/", address)


def test_what_a_damaged_archive_without_a_checksum_held_is_not_kept(
    monkeypatch, server, tmp_path
):
    case = CORPORA["iwslt14"](monkeypatch, server.address)
    content = case.files["de-en.tgz"]
    wrong = content[:-8] + bytes(4) + content[-4:]  # gzip's own checksum
    source = write(tmp_path / "source", {"de-en.tgz": wrong})
    for _ in range(2):
        message = refusal(case.name, tmp_path, source)
        assert "de-en.tgz is damaged or cut short (CRC check failed" in message
    assert not list(tmp_path.glob("data/downloads/**/*.xml*"))
    (source / "de-en.tgz").write_bytes(content)
    check(prepare(case.name, tmp_path, source), case)
