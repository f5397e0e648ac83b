"""The corpus of the standard library's source text."""

import json
import shutil
import sys
import textwrap

import pytest

from data.corpora.text import python_stdlib
from data.corpus import open_corpus
from helpers.served_corpora import refusal
from utils.errors import UserError


@pytest.fixture(scope="module")
def stdlib(tmp_path_factory):
    return open_corpus("python_stdlib", tmp_path_factory.mktemp("data"))


def test_the_standard_library_holds_the_text_of_its_modules(stdlib):
    texts = {text for split in stdlib.splits for (text,) in stdlib.read(split)}
    for module in [json, textwrap, shutil]:
        with open(module.__file__, encoding="utf-8") as file:
            assert file.read() in texts
    assert stdlib.kind == "text"


def test_the_standard_librarys_splits_share_no_text(stdlib):
    texts = [text for split in stdlib.splits for (text,) in stdlib.read(split)]
    assert len(texts) == len(set(texts)) == sum(stdlib.splits.values())
    assert stdlib.splits["train"] > 0.8 * len(texts)
    assert min(stdlib.splits.values()) > 0.02 * len(texts)


def test_the_standard_librarys_name_holds_pythons_version(stdlib, tmp_path):
    version = ".".join(map(str, sys.version_info[:3]))
    assert stdlib.name.startswith(f"python_stdlib/{version}")
    message = refusal("python_stdlib/2.7.18", tmp_path)
    assert f"no config '2.7.18'; it has {version}" in message


def make_library(folder):
    files = {
        "json/decoder.py": b"x = 1\n",
        "abc.py": b"# coding: latin-1\nx = '\xe9'\r\n",
        "ast.py": b"x = '\xe9'\n",  # not UTF-8, and says no other
        "bdb.py": b"x = 1\n",  # json/decoder.py, sorted before it
        "cmd.py": b"",
        "json/tests/test_json.py": b"x = 2\n",
        "site-packages/numpy.py": b"x = 3\n",
        "sitecustomize.py": b"x = 4\n",
        "test/test_abc.py": b"x = 5\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_only_the_librarys_own_decodable_unrepeated_modules_are_read(tmp_path):
    make_library(tmp_path)
    found = list(python_stdlib.read_library(tmp_path))
    assert found == [
        ("abc.py", "# coding: latin-1\nx = 'é'\n"),
        ("bdb.py", "x = 1\n"),
    ]


def test_a_python_without_its_librarys_source_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.py file"):
        list(python_stdlib.read_library(tmp_path))
