"""WordPiece tokenization, with the examples of BERT's own tests."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK
from data.tokenizers.build import (
    dump_tokenizer,
    make_normalizers,
    parse_tokenizer,
    read_vocabulary,
    train_tokenizer,
)
from data.tokenizers.normalization import Normalizer
from data.tokenizers.wordpiece import MAX_WORD, WordPieceTokenizer, split_words

UNCASED = Normalizer(lowercase=True, strip_accents=True)
BERT = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn"]
BERT += ["##ing", ","]
TEXTS = ["the cat sat on the mat", "a dog ate the cat", "über 12,5 °C — 東京 m²", ""]


def bert(*more, normalizer=UNCASED):
    tokenizer = WordPieceTokenizer.from_tokens([*BERT, *more])
    return tokenizer.with_normalizer(normalizer)


@pytest.mark.parametrize(
    ("text", "uncased", "words"),
    [
        (" \tHeLLo!how  \n Are yoU?  ", True, "hello ! how are you ?"),
        (" \tHeLLo!how  \n Are yoU?  ", False, "HeLLo ! how Are yoU ?"),
        ("H\u00e9llo", True, "hello"),
        ("ah\u535a\u63a8zz", True, "ah \u535a \u63a8 zz"),
        ("a\0b\ufffdc\u200bd\x07e", False, "abcde"),
        ("$5=x^2~`|", False, "$ 5 = x ^ 2 ~ ` |"),
        ("don't\u3000stop\u2014now\u00a0\u2028.", False, "don ' t stop \u2014 now ."),
        ("カタカナ 한국어", False, "カタカナ 한국어"),
        ("a <unk> b<unk>", False, "a <unk> b <unk>"),
        ("<pad>", False, "< pad >"),
    ],
)
def test_words_are_separated_as_in_bert(text, uncased, words):
    text = (UNCASED if uncased else Normalizer()).apply(text)
    assert split_words(text) == words.split(" ")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("UNwant\u00e9d,running", "un ##want ##ed , runn ##ing"),
        ("unwanted running", "un ##want ##ed runn ##ing"),
        ("unwantedX running", "<unk> runn ##ing"),
        ("", ""),
        ("un" * (MAX_WORD // 2 + 1), "<unk>"),
    ],
)
def test_words_are_covered_by_the_longest_pieces_from_the_left(text, pieces):
    tokenizer = bert()
    assert tokenizer.pieces(tokenizer.encode(text)) == pieces.split()


def test_the_longest_piece_is_taken_even_if_the_rest_then_has_none():
    tokenizer = bert("abc", "ab", "##cd", "##c", "##d")
    assert tokenizer.pieces(tokenizer.encode("abcd abcx")) == ["abc", "##d", "<unk>"]


class TestVocabularyOfBert:
    def test_special_tokens_come_first_and_others_keep_their_order(self, tmp_path):
        path = tmp_path / "vocab.txt"
        tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]
        path.write_text("\n".join([*tokens, "##s", ""]))
        tokenizer = read_vocabulary("wordpiece", path)
        assert tokenizer.symbols == [*SPECIAL, "<mask>", "[unused0]", "the", "##s"]
        tagged = tokenizer.with_tags(["<mask>", "<e1>"])
        assert tagged.tags == {"<mask>": 4, "<e1>": 8}
        assert tagged.encode("[MASK] <mask> thes") == [UNK] * 6 + [6, 7]

    def test_without_a_mask_the_tag_is_new(self):
        assert bert().with_tags(["<mask>"]).tags == {"<mask>": len(BERT) + 1}


def test_decoding_joins_pieces_and_drops_special_tokens():
    tokenizer = bert()
    ids = tokenizer.encode("unwanted , running z")
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == "unwanted , running <unk>"
    assert tokenizer.words("Unwanted,zz") == ["un", "want", "ed", ",", "zz"]


class TestTraining:
    def test_characters_come_in_both_forms_and_then_merges(self):
        text = "xab xab xab, cab cab ab \u6771\u4eac"
        symbols = train_tokenizer("wordpiece", [text], len(SPECIAL) + 15, 1).symbols
        characters = ["##b", "##a", "x", "c", ",", "a", "京", "東", "##c", "##x", "b"]
        assert symbols == [*SPECIAL, *characters, "##ab", "xab", "cab", "ab"]

    def test_the_size_is_kept_and_every_known_character_has_a_piece(self):
        for size in (60, 70):
            tokenizer = train_tokenizer("wordpiece", TEXTS, size, 1)
            assert tokenizer.vocab_size == size
            assert len(set(tokenizer.symbols)) == size
            assert UNK not in tokenizer.encode(" ".join(TEXTS))

    def test_few_pieces_are_the_most_frequent_characters(self):
        tokenizer = train_tokenizer("wordpiece", ["東 東 京"], len(SPECIAL) + 1, 1)
        assert tokenizer.encode("東京") == [len(SPECIAL), UNK]

    def test_a_text_without_words_gives_only_special_tokens(self):
        for texts in ([], ["", " \x07 <unk>", "a" * 101]):
            assert train_tokenizer("wordpiece", texts, 99, 1).symbols == [*SPECIAL]

    def test_reserved_symbols_of_sentencepiece_are_characters(self):
        texts = ["a\u2581b \u2585 c\ud800", "\u2581a"]
        tokenizer = train_tokenizer("wordpiece", texts, 99, 1)
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_learning_twice_gives_the_same_and_saving_restores_it(self):
        one, two = (train_tokenizer("wordpiece", TEXTS, 70, 1) for _ in range(2))
        assert dump_tokenizer(one) == dump_tokenizer(two)
        again = parse_tokenizer(dump_tokenizer(one.with_normalizer(UNCASED)))
        assert again.symbols == one.symbols
        assert again.normalizer == UNCASED


def test_random_words_are_restored_and_no_longer_piece_would_fit():
    random = np.random.default_rng(0)
    letters = list("abcé東")
    texts = [
        " ".join(
            "".join(random.choice(letters, random.integers(1, 9))) for _ in range(20)
        )
        for _ in range(40)
    ]
    tokenizer = train_tokenizer("wordpiece", texts, 80, 1)
    known = set(tokenizer.symbols)
    for text in texts:
        words = split_words(text)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == " ".join(words)
        assert "".join(tokenizer.words(text)) == "".join(words)
        pieces = tokenizer.pieces(ids)
        for word in words:
            rest, prefix = word, ""
            while rest:
                piece = pieces.pop(0)
                fitting = [
                    p
                    for i in range(1, len(rest) + 1)
                    if (p := prefix + rest[:i]) in known
                ]
                assert piece == max(fitting, key=len)
                rest, prefix = rest[len(piece) - len(prefix) :], "##"
        assert not pieces


@pytest.mark.parametrize("lowercase", [False, True])
def test_accents_are_stripped_where_wordpiece_is_lower_cased(lowercase):
    class Text:
        languages = ()

    for kind, stripped in [("wordpiece", lowercase), ("word", False)]:
        cfg = ConfigDict({"target_tag": False, "moses_tokenize": False})
        cfg.lowercase, cfg.tokenizer = lowercase, kind
        (normalizer,) = make_normalizers(Text(), ("text",), cfg)
        assert normalizer.lowercase == lowercase
        assert normalizer.strip_accents == stripped
    vocabulary = bert(normalizer=Normalizer(lowercase=True))
    assert "strip_accents" not in dump_tokenizer(vocabulary)  # as it was always stored
