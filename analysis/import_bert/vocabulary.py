"""BERT's folder of files, and its vocabulary in the order of our tokenizers.

Our vocabularies begin with <pad>, <eos>, <unk>, <bos> and end with MARKERS, of which
BERT has the mask alone. `reorder` moves the rows of the model's tables accordingly.
"""

import json
from pathlib import Path

import numpy as np

from analysis.imported_run import NEVER
from data.tokenizers.normalization import Normalizer
from data.tokenizers.wordpiece import BERT_NAMES, WordPieceTokenizer
from data.understanding.markers import MARKERS
from utils.errors import UserError
from utils.text_files import decode_lines

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"
TOKENIZER = "tokenizer_config.json"  # optional
NEW_ROW = 0.02  # standard deviation of new embeddings, that of BERT's initialisation


def check_folder(folder: Path) -> None:
    """Raises UserError if the folder lacks a file of a published BERT."""
    if not folder.is_dir():
        raise UserError(f"--from={folder}: there is no such folder")
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        if not (folder / name).is_file():
            found = ", ".join(sorted(file.name for file in folder.iterdir())[:8])
            raise UserError(
                f"--from={folder} has no {name}; it has {found or 'no files'}"
            )


def read_json(path: Path) -> dict:
    """Reads a JSON object. Raises UserError for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def read_words(path: Path) -> list[str]:
    """Reads words by id.

    Raises UserError for text not UTF-8, a repeated word, or a missing special one.
    """
    with path.open("rb") as file:
        words = list(decode_lines(str(path), file))
    first: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        before = first.setdefault(word, number)
        if before != number:
            raise UserError(f"{path}: lines {before} and {number} are {word!r}")
    missing = [name for name in BERT_NAMES if name not in first]
    if missing:
        raise UserError(
            f"{path}: it lacks {', '.join(missing)}, so it is no vocabulary of a BERT"
        )
    return words


def read_lowercase(folder: Path, lowercase: bool | None) -> bool:
    """Returns whether to lower-case: as asked, as tokenizer_config.json says, or True.

    Raises UserError for options that our tokenizer does not have.
    """
    path = folder / TOKENIZER
    options = read_json(path) if path.is_file() else {}
    if lowercase is None:
        lowercase = bool(options.get("do_lower_case", True))
    strips = options.get("strip_accents")
    if strips is not None and strips != lowercase:
        raise UserError(
            f"{path}: strip_accents={strips} with do_lower_case={lowercase}: accents "
            "are stripped if and only if text is lower-cased"
        )
    if not options.get("tokenize_chinese_chars", True):
        raise UserError(
            f"{path}: tokenize_chinese_chars=False: Chinese characters are always "
            "words alone"
        )
    return lowercase


def make_tokenizer(words: list[str], *, lowercase: bool) -> WordPieceTokenizer:
    """Returns the tokenizer of a vocabulary, with an id for each marker."""
    normalizer = Normalizer(lowercase=lowercase, strip_accents=lowercase)
    tokenizer = WordPieceTokenizer.from_tokens(words).with_tags(MARKERS)
    return tokenizer.with_normalizer(normalizer)


def reorder(params: dict, words: list[str], tokenizer: WordPieceTokenizer) -> dict:
    """Reorders the rows of embedding and output layer to the ids of a tokenizer.

    A marker that BERT lacks gets a random embedding and, as a word to predict,
    probability 0.

    Raises UserError if the words do not fit the tables.
    """
    embedding = params["encoder"]["embedding"]
    if len(embedding["table"]) != len(words):
        raise UserError(
            f"{VOCABULARY} has {len(words)} words; the weights have "
            f"{len(embedding['table'])}"
        )
    theirs = {ours: name for name, ours in BERT_NAMES.items()}
    ids = {word: number for number, word in enumerate(words)}
    order = np.asarray(
        [
            ids.get(theirs.get(piece, piece), -1)
            for piece in tokenizer.pieces(range(tokenizer.vocab_size))
        ]
    )
    is_new = order < 0

    def move(name: str, rows: np.ndarray) -> np.ndarray:
        moved = rows[order]
        shape = moved[is_new].shape
        noise = np.random.default_rng(0).normal(0, NEW_ROW, shape)
        moved[is_new] = NEVER if name == "bias" else noise
        return moved

    return {
        **params,
        "encoder": {
            **params["encoder"],
            "embedding": {name: move(name, rows) for name, rows in embedding.items()},
        },
        "head": {name: move(name, rows) for name, rows in params["head"].items()},
    }
