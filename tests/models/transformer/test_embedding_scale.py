"""Tests of `scale_embeddings`."""

import jax
import numpy as np
import pytest

from helpers.architectures import (
    B,
    EncoderCase,
    LanguageModelCase,
    Seq2SeqCase,
    T,
    V,
    small_config,
    tokens,
)

CASES = {
    "language model": (LanguageModelCase, lambda case: (tokens((B, T)), case.carry(B))),
    "translation": (Seq2SeqCase, lambda _: ()),
    "encoder": (EncoderCase, lambda _: ()),
}


@pytest.mark.parametrize("name", ["transformer", "transformer_xl"])
@pytest.mark.parametrize("kind", CASES)
def test_scaled_embeddings_are_tables_times_the_root_of_the_width(kind, name):
    make, inputs = CASES[kind]
    options = {"memory_length": 0, "tie_embeddings": False}
    scaled, plain = (
        make(name, scale_embeddings=value, **options) for value in (True, False)
    )

    def enlarge(path, leaf):
        names = jax.tree_util.keystr(path)
        is_table = "position" not in names and names.endswith("['table']")
        return leaf * scaled.model.config.width**0.5 if is_table else leaf

    larger = jax.tree_util.tree_map_with_path(enlarge, scaled.variables)
    found = plain.run(*inputs(plain), variables=larger)[0]
    expected = scaled.run(*inputs(scaled))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_embeddings_that_are_not_scaled_are_small_at_first():
    config = small_config("transformer", scale_embeddings=False, width=60)
    table = config.embedding_init(jax.random.key(0), (V * 100, 60))
    assert np.std(table) == pytest.approx(0.02, rel=0.05)
