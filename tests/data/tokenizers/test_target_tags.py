"""Target language tags are one id in every tokenizer."""

import numpy as np
import pytest

from configs import base
from data.tokenizers.base import SPECIAL
from data.tokenizers.bpe_dropout import BPEDropout
from data.tokenizers.build import (
    dump_tokenizer,
    find_tokenizers,
    parse_tokenizer,
    read_vocabulary,
    train_tokenizer,
)
from data.tokenizers.normalization import Normalizer
from utils.errors import UserError

TEXTS = ["the cat sat on the mat", "a dog ate the cat"]
KINDS = {"byte": 260, "char": 90, "word": 90, "sentencepiece": 45, "unigram": 19}


class TwoTargets:
    name, version, kind = "two", "1.0.0", "parallel"
    splits = {"train": 2}  # noqa: RUF012
    fields, languages, targets = ("en", "de"), ("en", "de"), ("de", "fr")

    def read(self, split, start=0, stop=None):
        return iter([("<2de> the cat", "die Katze"), ("<2fr> a dog", "un chien")])


def tagged(kind):
    plain = train_tokenizer(kind, TEXTS, KINDS[kind], 1)
    return plain, plain.with_tags(["<2de>", "<2fr>"]).with_normalizer(
        Normalizer(tag="<2de>")
    )


@pytest.mark.parametrize("kind", KINDS)
class TestTags:
    def test_a_tag_is_one_id_after_all_others(self, kind):
        plain, source = tagged(kind)
        assert source.vocab_size == plain.vocab_size + 2
        for text in TEXTS:
            german, french = plain.vocab_size, plain.vocab_size + 1
            assert source.encode(text) == [german, *plain.encode(text)]
            assert source.encode(f"<2fr> {text}") == [french, *plain.encode(text)]
            assert source.decode(source.encode(text)) == text
            assert source.pieces(source.encode(text))[0] == "<2de>"

    def test_a_batch_of_tagged_texts_has_the_same_ids_as_each_text(self, kind):
        _, source = tagged(kind)
        texts = [*TEXTS, "<2fr> the cat", "", "<2fr> "]
        numbers, lengths = source.encode_batch(texts)
        rows = np.split(numbers, np.cumsum(lengths)[:-1])
        assert [row.tolist() for row in rows] == [source.encode(t) for t in texts]

    def test_a_saved_tokenizer_is_restored(self, kind):
        plain, source = tagged(kind)
        again = parse_tokenizer(dump_tokenizer(source))
        assert again.tags == source.tags
        assert again.encode(TEXTS[0]) == source.encode(TEXTS[0])
        assert again.shares_vocabulary(source)
        assert not again.shares_vocabulary(plain)

    def test_an_unknown_tag_is_refused(self, kind):
        _, source = tagged(kind)
        with pytest.raises(UserError, match=r"tag <2ja> in .*; choose <2de>, <2fr>"):
            source.encode("<2ja> the cat")

    def test_a_target_has_no_tag(self, kind):
        plain, source = tagged(kind)
        target = source.with_normalizer(Normalizer())
        assert target.encode(TEXTS[0]) == plain.encode(TEXTS[0])


@pytest.mark.parametrize("joint", [True, False])
def test_a_corpus_gives_its_sources_a_tag_within_the_size(joint, tmp_path):
    cfg = base.get_config().data
    cfg.update(tokenizer="word", vocab_size=9, target_tag=True, joint_vocab=joint)
    found = find_tokenizers(TwoTargets(), tmp_path, ("source", "target"), cfg)
    source, target = found["source"], found["target"]
    assert source.vocab_size <= 9
    assert source.pieces(source.encode("<2fr> the cat"))[0] == "<2fr>"
    assert not any("<2" in symbol for symbol in source.symbols)
    assert source.shares_vocabulary(target) is joint
    assert target.vocab_size == (9 if joint else len(SPECIAL) + 4)
    assert found["source"].encode("the cat")[0] == source.tags["<2de>"]


def test_a_given_vocabulary_may_have_the_tag(tmp_path):
    path = tmp_path / "words"
    path.write_text("the\n<2de>\ncat\n")
    given = read_vocabulary("word", path).with_tags(["<2de>", "<2fr>"])
    assert given.tags == {"<2de>": len(SPECIAL) + 1, "<2fr>": len(SPECIAL) + 3}
    assert given.vocab_size == len(SPECIAL) + 4


def test_skipped_merges_keep_the_tag():
    _, source = tagged("sentencepiece")
    texts = [*TEXTS, "<2fr> the cat"]
    sampler = BPEDropout(0.5, 0, 0).sampler(source, 0)
    numbers, lengths = sampler.encode_batch(texts)
    rows = np.split(numbers, np.cumsum(lengths)[:-1])
    firsts = [source.tags[tag] for tag in ("<2de>", "<2de>", "<2fr>")]
    assert [row[0] for row in rows] == firsts
    assert [source.decode(row) for row in rows] == [*TEXTS, "the cat"]
