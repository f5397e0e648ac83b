"""The tokenizers of an experiment: learnt from its corpus once, or given.

<data.dir>/encoded/<corpus>/tokenizer-<key>/<side>.json
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data.corpus import TRAIN, Corpus
from data.remote import is_there
from data.samples import spread
from data.storage import short_hash, written_whole
from data.tokenizers.normalization import TAG, Normalizer, language_tag
from data.tokenizers.serialization import (
    KINDS,
    Tokenizer,
    dump_tokenizer,
    parse_tokenizer,
    read_vocabulary,
    train_tokenizer,
)
from utils.errors import UserError

FORMAT = 3  # to be raised when the meaning of a setting changes
JOINT = "joint"


def normalizers(
    corpus: Corpus, sides: tuple[str, ...], cfg: ConfigDict
) -> list[Normalizer]:
    """What is done to each side of a corpus before it is tokenised.

    Raises UserError for Moses without a language, and a tag without a target.
    """
    languages = corpus.languages or ("",) * len(sides)
    if cfg.target_tag and not corpus.languages:
        raise UserError("data.target_tag=True: a text has no target language")
    tags = [language_tag(languages[-1]) if cfg.target_tag else "", ""]
    return [
        Normalizer(language or "en", cfg.moses_tokenize, cfg.lowercase, tag)
        if cfg.moses_tokenize
        else Normalizer(lowercase=cfg.lowercase, tag=tag)
        for language, tag in zip(languages, tags, strict=False)
    ]


def find_tokenizers(
    corpus: Corpus, folder: Path, sides: tuple[str, ...], cfg: ConfigDict
) -> dict[str, Tokenizer]:
    """Tokenizers by side: given, or learnt now or before from the training split."""
    normals = normalizers(corpus, sides, cfg)
    tags = [language_tag(target) for target in corpus.targets] if cfg.target_tag else []
    if cfg.vocabulary:
        given = read_vocabulary(cfg.tokenizer, Path(cfg.vocabulary).expanduser())
        found = {JOINT: given}
    else:
        keys = ("tokenizer", "vocab_size", "min_count", "joint_vocab")
        settings = {key: cfg[key] for key in keys}
        kind = KINDS.get(cfg.tokenizer)
        settings["recipe"] = kind.recipe if kind else {}
        settings["normal"] = normals

        def train():
            return learn(corpus, sides, normals, cfg, tags)

        found = open_tokenizers(corpus, folder, settings, train)
    return {
        side: tagged(found, side, tags).with_normal(normal)
        for side, normal in zip(sides, normals, strict=True)
    }


def tagged(found: dict[str, Tokenizer], side: str, tags: list[str]) -> Tokenizer:
    """The tokenizer of a side; tags are where a source has them."""
    if side in found and side != "source":
        return found[side]
    return found.get(side, found.get(JOINT)).with_tags(tags)


def learn(
    corpus: Corpus,
    sides: tuple[str, ...],
    normals: list[Normalizer],
    cfg: ConfigDict,
    tags: Sequence[str] = (),
) -> dict[str, Tokenizer]:
    """Tokenizers by side, or one for all, with room left for tags."""

    def train(columns):
        size = cfg.vocab_size - (len(tags) if 0 in columns else 0)
        most = KINDS[cfg.tokenizer].learns_from if cfg.tokenizer in KINDS else 0
        texts = (
            plain(normals[i], text[i])
            for text in spread(corpus, TRAIN, most)
            for i in columns
        )
        return train_tokenizer(cfg.tokenizer, texts, size, cfg.min_count)

    if len(sides) > 1 and cfg.joint_vocab:
        return {JOINT: train(range(len(sides)))}
    return {side: train([i]) for i, side in enumerate(sides)}


def plain(normal: Normalizer, text: str) -> str:
    """A text as it is tokenised, without its tag."""
    text = normal.apply(text)
    return TAG.sub("", text, count=1) if normal.tag else text


def open_tokenizers(
    corpus: Corpus, folder: Path, settings: dict, train: Callable[[], dict]
) -> dict[str, Tokenizer]:
    """A tokenizer a side, learnt at the first call, read back afterwards.

    Args:
      settings: what the tokenizers depend on, beside the corpus.
      train: learns them.
    """
    key = short_hash(FORMAT, corpus.name, corpus.version, corpus.fields, settings)
    target = folder / f"tokenizer-{key}"
    if not is_there(target):
        with written_whole(target) as draft:
            for side, tokenizer in train().items():
                document = dump_tokenizer(tokenizer)
                (draft / f"{side}.json").write_text(document, encoding="utf8")
    return {
        file.stem: parse_tokenizer(file.read_text(encoding="utf8"))
        for file in sorted(target.glob("*.json"))
    }
