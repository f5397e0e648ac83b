"""Lists of places on the command line, whose names may have commas."""

import pytest

from utils.cli_inputs import PlacesParser, split_places


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "lr=1,seed=2", "x+y", " c "):
        (tmp_path / name).mkdir()


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("a,b", ["a", "b"]),
        (" a , b,", ["a", "b"]),
        ("", []),
        (",", []),
        ("lr=1,seed=2", ["lr=1,seed=2"]),
        ("a,lr=1,seed=2,b", ["a", "lr=1,seed=2", "b"]),
        ("lr=1,seed=3", ["lr=1", "seed=3"]),
        ("lr=1,seed=2/page.md,b/page.html", ["lr=1,seed=2/page.md", "b/page.html"]),
        ("page.html,page.md", ["page.html", "page.md"]),
        (" c ,a", [" c ", "a"]),
        ("gs://one/a,gs://two/b", ["gs://one/a", "gs://two/b"]),
    ],
)
def test_a_place_that_exists_is_one_whatever_its_name(places, given, parsed):
    assert PlacesParser().parse(given) == parsed


def test_the_longest_place_that_exists_is_taken(places, tmp_path):
    assert PlacesParser().parse("a,b") == ["a", "b"]
    (tmp_path / "a,b").mkdir()
    assert PlacesParser().parse("a,b") == ["a,b"]


def test_a_list_may_have_two_separators(places):
    given = "a+lr=1,seed=2,x+y,b"
    found = [("", "a"), ("+", "lr=1,seed=2"), (",", "x+y"), (",", "b")]
    assert list(split_places(given, ",+")) == found
