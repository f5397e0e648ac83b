"""Tokenizers and vocabularies."""

import json
import string

import pytest

from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK
from data.tokenizers.build import (
    dump_tokenizer,
    parse_tokenizer,
    read_vocabulary,
    train_tokenizer,
)
from data.tokenizers.normalization import Normalizer
from utils.errors import UserError

SIZES = {"sentencepiece": 74, "unigram": 33}  # as many as the texts have


TEXTS = ["the cat sat on the mat", "a dog ate the cat", "über 12,5 °C — 東京 m²", ""]


@pytest.mark.parametrize("kind", ["byte", "char", "word", "sentencepiece", "unigram"])
class TestTokenizers:
    def test_decoding_restores_the_text(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert UNK not in ids
            assert max(ids, default=0) < tokenizer.vocab_size
            assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text

    def test_a_saved_tokenizer_is_restored(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        again = parse_tokenizer(dump_tokenizer(tokenizer))
        assert again.vocab_size == tokenizer.vocab_size
        assert [again.encode(text) for text in TEXTS] == [
            tokenizer.encode(text) for text in TEXTS
        ]
        json.loads(dump_tokenizer(tokenizer))

    def test_there_is_a_piece_for_each_id(self, kind):
        tokenizer = train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1)
        ids = [BOS, *tokenizer.encode(TEXTS[2]), EOS]
        assert len(tokenizer.pieces(ids)) == len(ids)

    def test_learning_twice_gives_the_same(self, kind):
        one, two = (
            train_tokenizer(kind, TEXTS, SIZES.get(kind, 90), 1) for _ in range(2)
        )
        assert dump_tokenizer(one) == dump_tokenizer(two)


def test_rare_words_are_unknown_and_so_is_the_symbol_for_it():
    tokenizer = train_tokenizer("word", ["a a b <unk>"], 99, 2)
    assert tokenizer.encode("a b <unk> c") == [len(SPECIAL), UNK, UNK, UNK]
    assert tokenizer.vocab_size == len(SPECIAL) + 1


def test_a_text_with_a_special_word_neither_ends_there_nor_is_padded():
    tokenizer = train_tokenizer("word", ["a <pad> b <eos> c <bos>"], 99, 1)
    numbers = tokenizer.encode("a <pad> b <eos> c <bos>")
    assert [number for number in numbers if number < len(SPECIAL)] == [UNK] * 3
    assert tokenizer.decode(numbers) == "a <unk> b <unk> c <unk>"


def test_a_vocabulary_keeps_the_most_frequent():
    tokenizer = train_tokenizer("word", ["c c c b b a"], len(SPECIAL) + 2, 1)
    assert tokenizer.symbols == [*SPECIAL, "c", "b"]


def test_an_unknown_kind_and_a_size_without_room_are_refused():
    with pytest.raises(UserError, match="byte, word, char, sentencepiece"):
        train_tokenizer("syllable", TEXTS, 99, 1)
    with pytest.raises(UserError, match="vocab_size=3"):
        train_tokenizer("word", TEXTS, 3, 1)
    with pytest.raises(UserError, match="vocab_size=9"):
        train_tokenizer("sentencepiece", [string.printable.strip()], 9, 1)
    with pytest.raises(UserError, match=r"vocab_size=75 is more than .* 74 pieces"):
        train_tokenizer("sentencepiece", TEXTS, 75, 1)


def test_a_tag_names_the_target_language_and_is_not_shown():
    tagged = Normalizer(tag="<2de>")
    assert tagged.apply("a cat") == "<2de> a cat"
    assert tagged.undo("<2de> a cat") == "a cat"
    assert tagged.apply("<2fr> a cat") == "<2fr> a cat"  # asked for in the text
    region = Normalizer(tag="<2zh-cn>")
    assert region.apply(region.apply("a cat")) == "<2zh-cn> a cat"
    assert region.undo("<2zh-cn> a cat") == "a cat"


@pytest.mark.parametrize("code", ["deu", "ger", "de_DE", "de-AT"])
def test_moses_rules_follow_the_language_of_any_code(code):
    text = "bzw. Das"
    assert Normalizer(code, moses=True).apply(text) == text
    assert (
        Normalizer("xx", moses=True).apply(text) == "bzw . Das"
    )  # the rules of English


class TestVocabularyFiles:
    def test_a_list_of_words_keeps_its_order(self, tmp_path):
        path = tmp_path / "words.txt"
        path.write_text("<unk>\nthe\ncat\n")
        tokenizer = read_vocabulary("word", path)
        assert tokenizer.symbols == [*SPECIAL, "the", "cat"]

    def test_a_list_is_read_whatever_editor_wrote_it(self, tmp_path):
        path = tmp_path / "words.txt"
        path.write_bytes(b"\xef\xbb\xbfthe\r\n\r\ncat\r\nthe\r\n\r\n")
        assert read_vocabulary("word", path).symbols == [*SPECIAL, "the", "cat"]
        path.write_bytes(b"a\n \n\xe9\n")
        with pytest.raises(UserError, match=r"words\.txt is not UTF-8 in line 3"):
            read_vocabulary("char", path)
        path.write_text("a\n \n")
        assert read_vocabulary("char", path).symbols == [*SPECIAL, "a", " "]

    def test_a_sentencepiece_model_is_read_unchanged(self, tmp_path):
        path = tmp_path / "pieces.model"
        trained = train_tokenizer("sentencepiece", TEXTS, 74, 1)
        path.write_bytes(trained.model)
        assert read_vocabulary("sentencepiece", path).shares_vocabulary(trained)

    def test_missing_and_invalid_vocabulary_files_are_refused(self, tmp_path):
        path = tmp_path / "pieces.model"
        with pytest.raises(UserError, match="there is no such file"):
            read_vocabulary("sentencepiece", path)
        path.write_text("not a model")
        with pytest.raises(UserError, match="no SentencePiece model"):
            read_vocabulary("sentencepiece", path)
        with pytest.raises(UserError, match="'byte' takes no file"):
            read_vocabulary("byte", path)
