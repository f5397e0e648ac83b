"""Tokenizers of an experiment: learned from its corpus once, or read from a file.

    <data.dir>/encoded/<corpus>/tokenizer-<key>/<side>.json

`<key>` is a hash of the settings and the corpus.
"""

import collections
import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data.corpus import TRAIN, Corpus, sample_evenly
from data.storage import atomic_directory, ensure_local, short_hash
from data.tokenizers.base import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer
from data.tokenizers.normalization import IDENTITY, TAG, Normalizer, language_tag
from utils.errors import UserError
from utils.text_files import read_lines

FORMAT = 3  # increment it when a setting changes its meaning
MAX_SEARCHED = 2**26  # characters of a split in which lossy ones are counted
JOINT = "joint"  # the side of a vocabulary shared by source and target

# From the value of `data.tokenizer` to a module and its class; only those of the chosen
# one are imported.
SYMBOLS, SENTENCEPIECE = "data.tokenizers.symbols", "data.tokenizers.sentencepiece"
KINDS = {
    "byte": (SYMBOLS, "ByteTokenizer"),
    "word": (SYMBOLS, "WordTokenizer"),
    "char": (SYMBOLS, "CharTokenizer"),
    "sentencepiece": (SENTENCEPIECE, "SentencePieceTokenizer"),
    "unigram": (SENTENCEPIECE, "UnigramTokenizer"),
    "wordpiece": ("data.tokenizers.wordpiece", "WordPieceTokenizer"),
}
LABELS = ("data.understanding.labels", "Labels")  # kind "labels": of no text


def tokenizer_class(kind: str) -> type[Tokenizer]:
    """Returns the class of a kind of tokenizer. Raises UserError if there is none."""
    if kind not in KINDS:
        raise UserError(
            f"Unknown data.tokenizer {kind!r}; choose one of {', '.join(KINDS)}"
        )
    module, name = KINDS[kind]
    return getattr(importlib.import_module(module), name)


def find_tokenizers(
    corpus: Corpus, folder: Path, sides: tuple[str, ...], cfg: ConfigDict
) -> dict[str, Tokenizer]:
    """Returns a tokenizer for each side, stored in `folder` once it is learned."""
    normalizers = make_normalizers(corpus, sides, cfg)
    tags = [language_tag(target) for target in corpus.targets] if cfg.target_tag else []
    if cfg.vocabulary:
        path = Path(cfg.vocabulary).expanduser()
        tokenizers = {JOINT: read_vocabulary(cfg.tokenizer, path)}
    else:
        keys = ("tokenizer", "vocab_size", "min_count", "joint_vocab")
        settings = {key: cfg[key] for key in keys}
        settings["recipe"] = tokenizer_class(cfg.tokenizer).recipe
        settings["normal"] = normalizers
        train = functools.partial(learn, corpus, sides, normalizers, cfg, tags)
        tokenizers = open_tokenizers(corpus, folder, settings, train)
    return {
        side: _add_tags(tokenizers, side, tags).with_normalizer(normalizer)
        for side, normalizer in zip(sides, normalizers, strict=True)
    }


def make_normalizers(
    corpus: Corpus, sides: tuple[str, ...], cfg: ConfigDict
) -> list[Normalizer]:
    """Returns the normalizer of each side of a corpus.

    Raises UserError if tags are asked for, but the corpus has no target language.
    """
    languages = corpus.languages or ("",) * len(sides)
    if cfg.target_tag and not corpus.languages:
        raise UserError(f"data.target_tag=True: {corpus.name} has no target language")
    tags = [language_tag(languages[-1]) if cfg.target_tag else "", ""]
    strips = cfg.lowercase and cfg.tokenizer == "wordpiece"
    return [
        Normalizer(
            (language or "en") if cfg.moses_tokenize else "",
            cfg.moses_tokenize,
            cfg.lowercase,
            tag,
            strip_accents=strips,
        )
        for language, tag in zip(languages, tags, strict=False)
    ]


def _add_tags(tokenizers: dict[str, Tokenizer], side: str, tags: list[str]):
    """Returns the tokenizer of a side, with tags unless it is of the target alone."""
    if side in tokenizers and side != "source":
        return tokenizers[side]
    return tokenizers.get(side, tokenizers.get(JOINT)).with_tags(tags)


def learn(
    corpus: Corpus,
    sides: tuple[str, ...],
    normalizers: list[Normalizer],
    cfg: ConfigDict,
    tags: Sequence[str] = (),
) -> dict[str, Tokenizer]:
    """Learns a tokenizer for each side, or a joint one, with room left for tags."""
    most = tokenizer_class(cfg.tokenizer).learns_from

    def normalize(column: int, text: str) -> str:
        text = normalizers[column].apply(text)
        return TAG.sub("", text, count=1) if normalizers[column].tag else text

    def train(columns: Sequence[int]) -> Tokenizer:
        size = cfg.vocab_size - (len(tags) if 0 in columns else 0)
        texts = (
            normalize(i, example[i])
            for example in sample_evenly(corpus, TRAIN, most)
            for i in columns
        )
        return train_tokenizer(cfg.tokenizer, texts, size, cfg.min_count)

    if len(sides) > 1 and cfg.joint_vocab:
        return {JOINT: train(range(len(sides)))}
    return {side: train([i]) for i, side in enumerate(sides)}


def count_lossy_characters(
    corpus: Corpus, splits: Iterable[str], tokenizers: dict[str, Tokenizer]
) -> dict[str, collections.Counter]:
    """Returns how often each character occurs that decoding does not restore, by side.

    Sides without such characters are left out; of a large split a sample is read.
    """
    counts = {
        (column, side): collections.Counter()
        for column, (side, tokenizer) in enumerate(tokenizers.items())
        if tokenizer.lossy
    }
    for split in splits if counts else ():
        for texts in sample_evenly(corpus, split, MAX_SEARCHED):
            for (column, side), count in counts.items():
                count.update(tokenizers[side].lossy.findall(texts[column]))
    return {side: count for (_, side), count in counts.items()}


def open_tokenizers(
    corpus: Corpus, folder: Path, settings: dict, train: Callable[[], dict]
) -> dict[str, Tokenizer]:
    """Reads the tokenizers of a corpus and settings, after `train` learned them."""
    key = short_hash(FORMAT, corpus.name, corpus.version, corpus.fields, settings)
    target = folder / f"tokenizer-{key}"
    if not ensure_local(target):
        with atomic_directory(target) as draft:
            for side, tokenizer in train().items():
                document = dump_tokenizer(tokenizer)
                (draft / f"{side}.json").write_text(document, encoding="utf8")
    return {
        file.stem: parse_tokenizer(file.read_text(encoding="utf8"))
        for file in sorted(target.glob("*.json"))
    }


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, min_count: int
) -> Tokenizer:
    """Learns a tokenizer of normalized texts; UserError for a setting out of range."""
    learned = tokenizer_class(kind)
    if vocab_size <= len(SPECIAL):
        raise UserError(
            f"data.vocab_size={vocab_size} leaves no room for words: it must be more "
            f"than the {len(SPECIAL)} special tokens {' '.join(SPECIAL)}"
        )
    try:
        tokenizer = learned.train(texts, vocab_size, min_count)
    except RuntimeError as error:  # SentencePiece: fewer pieces than characters
        raise UserError(f"data.vocab_size={vocab_size}: {error}") from error
    size = tokenizer.vocab_size
    if KINDS[kind][0] == SENTENCEPIECE and size < vocab_size:
        raise UserError(
            f"data.vocab_size={vocab_size} is more than the text allows: it has {size} "
            "pieces"
        )
    return tokenizer


def read_vocabulary(kind: str, path: Path) -> Tokenizer:
    """Reads a SentencePiece model, or a list of tokens with one on each line.

    Raises UserError if the file is missing or does not fit `kind`.
    """
    if not path.is_file():
        raise UserError(f"data.vocabulary={path}: there is no such file")
    if kind in ("sentencepiece", "unigram"):
        return _read_sentencepiece(kind, path)
    kind_class = tokenizer_class(kind)
    if hasattr(kind_class, "from_tokens"):
        return kind_class.from_tokens(filter(None, read_lines("data.vocabulary", path)))
    raise UserError(f"data.vocabulary={path}: data.tokenizer={kind!r} takes no file")


def _read_sentencepiece(kind: str, path: Path) -> Tokenizer:
    try:
        tokenizer = tokenizer_class(kind)(path.read_bytes())
    except RuntimeError as error:
        raise UserError(f"data.vocabulary={path} is no SentencePiece model") from error
    processor = tokenizer.processor
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if (*ids, processor.bos_id()) != (PAD, EOS, UNK, BOS):
        raise UserError(
            f"data.vocabulary={path}: its first pieces must be {' '.join(SPECIAL)}; "
            "train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=3"
        )
    return tokenizer


def dump_tokenizer(tokenizer: Tokenizer) -> str:
    """Returns a tokenizer as a JSON document."""
    content = {"kind": tokenizer.kind, **tokenizer.to_dict()}
    if tokenizer.normalizer != IDENTITY:
        content["normal"] = dataclasses.asdict(tokenizer.normalizer)
        if not tokenizer.normalizer.strip_accents:
            del content["normal"]["strip_accents"]
    if tokenizer.tags:
        content["tags"] = list(tokenizer.tags)
    return json.dumps(content, ensure_ascii=False)


def parse_tokenizer(document: str) -> Tokenizer:
    """Restores a tokenizer from `dump_tokenizer`."""
    content = json.loads(document)
    if content["kind"] == "labels":
        module, name = LABELS
        return getattr(importlib.import_module(module), name).load(content)
    tokenizer = tokenizer_class(content["kind"]).load(content)
    normalizer = Normalizer(**content.get("normal", {}))
    return tokenizer.with_tags(content.get("tags", ())).with_normalizer(normalizer)
