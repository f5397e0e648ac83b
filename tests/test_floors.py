"""What translations score without learning."""

import pytest

from tasks.floors import floors, nearest_neighbours

TRAIN = [
    ("the red house is big", "das rote Haus ist groß"),
    ("5 March 2024", "5. März 2024"),
    ("one of the cats", "eine der Katzen"),
]


def test_the_nearest_neighbour_shares_most_with_the_query():
    known = [source for source, _ in TRAIN]
    queries = ["a red house", "6 March 2024", "cats", "the red house is big"]
    assert nearest_neighbours(known, queries).tolist() == [0, 1, 2, 0]


def test_a_query_that_shares_nothing_gets_some_neighbour():
    assert nearest_neighbours(["abc", "def"], ["東京"])[0] in (0, 1)


def test_floors_score_copies_and_neighbours():
    found = floors(TRAIN, [("5 March 2024", "5. März 2024")], "de")
    assert found["nearest_neighbour"]["exact_match"] == 100
    assert found["copy"]["exact_match"] == 0
    assert found["nearest_neighbour"]["bleu"] == pytest.approx(100)
    assert found["copy"]["bleu"] < 50


def test_without_pairs_to_look_through_only_copying_is_scored():
    assert floors([], [("a", "b")], "de").keys() == {"copy"}
