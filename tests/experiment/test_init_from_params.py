"""Training may start from the parameters of another run."""

import jax.numpy as jnp
import pytest

from experiment.init_from import init_from_params
from utils.errors import UserError


def tree(value, width=2):
    return {
        "encoder": {"kernel": jnp.full((3, width), value), "bias": jnp.full(2, value)},
        "head": {"table": jnp.full((5, 2), value)},
    }


def test_names_that_match_are_taken_and_no_others():
    found = init_from_params(tree(0.0), tree(1.0), "^encoder/.*kernel|^head")
    assert float(found["encoder"]["kernel"].sum()) == 6
    assert float(found["head"]["table"].sum()) == 10
    assert float(found["encoder"]["bias"].sum()) == 0


def test_what_does_not_fit_is_named_with_both_shapes():
    with pytest.raises(
        UserError, match=r"encoder/kernel \(3, 2\) is of shape \(3, 9\)"
    ):
        init_from_params(tree(0.0), tree(1.0, width=9), ".*")
    there = tree(1.0)
    del there["head"]
    with pytest.raises(UserError, match=r"head/table \(5, 2\) is missing there"):
        init_from_params(tree(0.0), there, ".*")
    assert (
        float(init_from_params(tree(0.0), there, "encoder")["head"]["table"].sum()) == 0
    )
    with pytest.raises(UserError, match="matches no parameter"):
        init_from_params(tree(0.0), tree(1.0), "decoder")
