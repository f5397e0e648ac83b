"""Published corpora are downloaded, verified and unpacked, or refused in a line."""

import re

import pytest

from helpers.loopback import checksum, gz, serving, write
from helpers.served_corpora import check, prepare, refusal_to_prepare, served
from helpers.small_corpora import CORPORA, small_wmt14


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def wmt(monkeypatch, server):
    """Serves a small WMT14 English-French."""
    return served(small_wmt14, monkeypatch, server)


@pytest.fixture(params=sorted(CORPORA))
def case(request, monkeypatch, server):
    """Serves a small corpus."""
    made = CORPORA[request.param](monkeypatch, server.address)
    server.files |= made.files
    return made


def damage(content):
    """Overwrites some bytes in the middle."""
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
    message = refusal_to_prepare(case.name, tmp_path)
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
    message = refusal_to_prepare(wmt.name, tmp_path, source)
    assert message == (
        f"checksum mismatch: {source / wmt.damaged} has sha256 {checksum(content)}, "
        f"expected {checksum(wmt.files[wmt.damaged])}; put the file of "
        f"{server.address}/{wmt.damaged} in a folder and give it as "
        "--config.data.source_dir"
    )


def test_an_interrupted_download_is_not_used(case, tmp_path, server):
    server.cut.add(case.damaged)
    message = refusal_to_prepare(case.name, tmp_path)
    assert f"cannot download {server.address}/{case.damaged}" in message
    assert "--config.data.source_dir=DIR" in message
    assert not list(tmp_path.rglob(f"*{case.damaged}*"))
    server.cut.clear()
    check(prepare(case.name, tmp_path), case)


def test_an_unreachable_address_is_named_with_the_alternative(case, tmp_path, server):
    del server.files[case.damaged]
    message = refusal_to_prepare(case.name, tmp_path)
    assert (
        f"cannot download {server.address}/{case.damaged} (404 Client Error" in message
    )
    assert "--config.data.source_dir=DIR, a folder that holds" in message


def test_files_missing_in_an_empty_source_folder_are_named(case, tmp_path):
    message = refusal_to_prepare(
        case.name, tmp_path, write(tmp_path / "source", {"other": b"x"})
    )
    if case.name == "pg19":
        assert "0 books of the split train instead of 3" in message
    else:
        assert f"source_dir {tmp_path / 'source'} lacks " in message
        assert "published at http://127.0.0.1" in message
