"""Filters of sentence pairs, normalization and mixtures of corpora."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from data.filters import filter_pairs
from data.mixtures import mix, parse_mixture
from data.token_cache import TokenizedSplit
from data.token_writer import SideWriter
from data.tokenizers.build import dump_tokenizer, parse_tokenizer, train_tokenizer
from data.tokenizers.normalization import Normalizer
from helpers.fake_corpora import FakeCorpus, OtherCorpus
from utils.errors import UserError

FILTERS = {
    "max_length": 9,
    "min_length": 1,
    "max_ratio": 0.0,
    "drop_identical": False,
    "drop_duplicates": False,
}


@pytest.mark.parametrize(
    ("change", "kept", "reason"),
    [
        ({}, [0, 1, 2, 3, 4], "longer than data.max_length=9"),
        ({}, [0, 1, 2, 3, 4], "shorter than data.min_length=1"),
        ({"min_length": 2}, [0, 1, 2, 3], "shorter than data.min_length=2"),
        ({"max_ratio": 2.5}, [0, 1, 2, 4], "data.max_ratio=2.5"),
        ({"drop_identical": True}, [0, 1, 3, 4], "identical"),
        ({"drop_duplicates": True}, [0, 2, 3, 4], "duplicates"),
    ],
)
def test_pairs_are_left_out_for_a_reason_and_counted(change, kept, reason):
    tokenizer = train_tokenizer("word", ["a b c d e f g h i"], 99, 1)
    pairs = [
        *(("a b", "c d"), ("a b", "c d"), ("e f", "e f"), ("a b c d e f g", "h i")),
        *(("a", "b"), ("a b c d e f g h i", "a"), ("", "a")),
    ]
    sides = [SideWriter(tokenizer) for _ in range(2)]
    for pair in pairs:
        for side, text in zip(sides, pair, strict=True):
            side.add_all([text])
    source, target = (
        TokenizedSplit(
            np.asarray(side.tokens),
            np.concatenate([[0], np.cumsum(side.lengths)]),
            *(0, 0, 0),
            np.asarray(side.hashes),
        )
        for side in sides
    )
    found, dropped = filter_pairs(source, target, ConfigDict(FILTERS | change))
    assert found.tolist() == kept
    assert [name for name in dropped if reason in name]
    assert sum(dropped.values()) == len(pairs) - len(kept)


def test_text_is_normalized_before_tokenization_and_moses_is_undone_after():
    normal = Normalizer("de", moses=True, lowercase=True)
    text = 'Ein "Mann" sagt: z.B. heute!'
    assert normal.apply(text) == 'ein " mann " sagt : z.b. heute !'
    assert normal.undo(normal.apply(text)) == 'ein "mann" sagt: z.b. heute!'
    tokenizer = train_tokenizer("word", [normal.apply(text)], 99, 1)
    again = parse_tokenizer(dump_tokenizer(tokenizer.with_normalizer(normal)))
    assert again.decode(again.encode(text)) == normal.normalize_reference(text)
    assert again.shares_vocabulary(tokenizer)
    assert not again.shares_vocabulary(train_tokenizer("word", ["x"], 99, 1))


class TestMixtures:
    def parts(self):
        first = FakeCorpus()
        first.languages = ("en", "de")
        return [(first, 1), (OtherCorpus(), 2)]

    def config(self, **changes):
        return ConfigDict({"name": "a+b:2", **FILTERS, "target_tag": True} | changes)

    def mixture(self, tagged=True):
        return mix(self.parts(), self.config(target_tag=tagged))

    def test_each_corpus_occurs_as_often_as_its_weight(self):
        mixture = self.mixture()
        sources = [source for source, _ in mixture.read("train")]
        assert mixture.splits == {"train": 3 + 2 * 2, "test": 1}
        assert sources == [
            *("<2de> the cat", "<2de> a dog", "<2de> x"),
            *("<2fr> the cat", "<2fr> a dog") * 2,
        ]
        assert list(mixture.read("test")) == [("<2de> the cat", "die Katze")]

    @pytest.mark.parametrize(("start", "stop"), [(0, 2), (2, 4), (3, 7), (6, None)])
    def test_any_range_can_be_read_alone(self, start, stop):
        mixture = self.mixture()
        everything = list(mixture.read("train"))
        assert list(mixture.read("train", start, stop)) == everything[start:stop]

    def test_several_targets_need_tags(self):
        with pytest.raises(UserError, match="target languages de, fr"):
            self.mixture(tagged=False)

    def test_filters_that_undo_a_mixture_are_refused(self):
        parts = self.parts()
        cfg = self.config(drop_duplicates=True)
        with pytest.raises(UserError, match="undoes the weights in 'a\\+b:2'"):
            mix(parts, cfg)
        mix([(corpus, 1) for corpus, _ in parts], cfg)
        cfg = self.config(drop_identical=True)
        with pytest.raises(UserError, match="begin with a tag"):
            mix(parts, cfg)
        cfg.target_tag = False
        mix([parts[1], parts[1]], cfg)

    def test_names_give_the_weight_of_each_corpus(self):
        assert parse_mixture("a/en-de+b/en-de:3") == [("a/en-de", 1), ("b/en-de", 3)]
        assert parse_mixture("ted_hrlr/x:1.0.0") == [("ted_hrlr/x:1.0.0", 1)]
        for weight in ("much", "²", "0", "-1", ""):
            with pytest.raises(
                UserError, match=f"the weight '{weight}' of b must be an integer"
            ):
                parse_mixture(f"a+b:{weight}")
