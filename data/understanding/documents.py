"""Token ids of documents of sentences, computed once and memory-mapped by every run.

    <data.dir>/encoded/<corpus>/documents-<key>/<split>.{tokens,sentences,documents}.npy

`<key>` is a hash of the corpus and the tokenizer. No token separates sentences.
"""

import dataclasses
import itertools
import json
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data.corpus import Corpus
from data.storage import atomic_directory, ensure_local, short_hash
from data.token_writer import SHARD_SIZE, group_by_characters, write_array
from data.tokenizers.base import CHUNK, Tokenizer
from data.tokenizers.build import dump_tokenizer
from data.understanding.sentences import Document, divide
from utils.errors import UserError
from utils.locks import file_lock

FORMAT = 2  # increment it when the layout or meaning of the files changes
ARRAYS = ("tokens", "sentences", "documents")


@dataclasses.dataclass(frozen=True)
class Documents:
    """The documents of one split.

    Attributes:
      tokens: token ids of all N tokens, memory-mapped.
      sentences: index of the first token of each sentence, and N.
      documents: index of the first sentence of each document, and their number.
      digest: 16 hexadecimal digits that depend on all of these.
    """

    tokens: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    digest: str = ""

    def __len__(self) -> int:
        return len(self.documents) - 1


def open_documents(
    corpus: Corpus, folder: Path, tokenizer: Tokenizer
) -> dict[str, Documents]:
    """Returns the documents of all splits, tokenized if needed.

    Args:
      folder: of the corpus's token ids.

    Raises:
      UserError: a split holds no sentence.
    """
    about = [corpus.name, corpus.version, corpus.fields, corpus.splits]
    target = (
        folder / f"documents-{short_hash(FORMAT, about, dump_tokenizer(tokenizer))}"
    )
    if not ensure_local(target):
        write_documents(corpus, target, tokenizer)
    splits = {split: read_documents(target, split) for split in corpus.splits}
    for split, documents in splits.items():
        if not len(documents):
            raise UserError(
                f"{corpus.name} has no document in its split {split!r}: it holds no "
                "sentence"
            )
    return splits


def read_documents(folder: Path, split: str) -> Documents:
    """Memory-maps the documents of a split."""
    arrays = {
        name: np.load(folder / f"{split}.{name}.npy", mmap_mode="r") for name in ARRAYS
    }
    about = json.loads((folder / f"{split}.json").read_text(encoding="utf8"))
    return Documents(**arrays, digest=about["digest"])


def write_documents(corpus: Corpus, target: Path, tokenizer: Tokenizer) -> None:
    """Divides and tokenizes all splits of a corpus."""
    lock = target.with_name(f".{target.name}.lock")
    with file_lock(lock, f"tokenizes {corpus.name}"):
        if target.exists():  # the process we waited for has written it
            return
        print(f"tokenizing {corpus.name} ...", file=sys.stderr)
        with atomic_directory(target) as draft:
            for split in corpus.splits:
                texts = (text for (text,) in corpus.read(split))
                keep_ends = not tokenizer.splits_at_spaces
                documents = divide(corpus.name, texts, keep_ends=keep_ends)
                write_split(documents, draft, split, tokenizer)


def write_split(
    documents: Iterable[Document], folder: Path, split: str, tokenizer: Tokenizer
) -> None:
    """Writes the arrays of a split, whose parts pass through small files."""
    parts = []
    for number, encoded in enumerate(encode_parts(documents, tokenizer)):
        parts.append({name: folder / f"{number}.{name}.npy" for name in ARRAYS})
        for name, values in encoded.items():
            np.save(parts[-1][name], values)
    digests = []
    for name in ARRAYS:
        arrays = (np.load(part[name]) for part in parts)
        dtype = np.uint32 if tokenizer.vocab_size > 2**16 else np.uint16
        if name != "tokens":
            arrays, dtype = cumulative_sums(arrays), np.int64
        _, digest = write_array(f"{folder / split}.{name}.npy", arrays, dtype)
        digests.append(digest)
        for part in parts:
            part[name].unlink()
    about = json.dumps({"digest": short_hash(digests)})
    (folder / f"{split}.json").write_text(about, encoding="utf8")


def encode_parts(
    documents: Iterable[Document], tokenizer: Tokenizer
) -> Iterator[dict[str, np.ndarray]]:
    """Yields tokens, sentence lengths and document lengths, of bounded size.

    Sentences without any token are left out, and documents without a sentence.
    """
    for group in group_by_characters(documents, SHARD_SIZE):
        typecode = "I" if tokenizer.vocab_size > 2**16 else "H"
        tokens, sentences, lengths = array(typecode), array("q"), array("q")
        for few in group_by_characters(group, CHUNK):
            flat = list(itertools.chain.from_iterable(few))
            ids, counts = encode_sentences(flat, tokenizer)
            tokens.frombytes(ids.astype(typecode).tobytes())
            sentences.extend(counts[counts > 0].tolist())
            owners = np.repeat(np.arange(len(few)), [len(one) for one in few])
            held = np.bincount(owners[counts > 0], minlength=len(few))
            lengths.extend(held[held > 0].tolist())
        arrays = map(np.asarray, (tokens, sentences, lengths))
        yield dict(zip(ARRAYS, arrays, strict=True))


def encode_sentences(
    sentences: Document, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the concatenated ids of sentences, and the number of each."""
    if all(len(sentence) <= CHUNK for sentence in sentences):
        return tokenizer.encode_batch(sentences)
    ids = [np.concatenate(list(tokenizer.encode_long(one))) for one in sentences]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.concatenate(ids), lengths


def cumulative_sums(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields 0 and the cumulative sums of the concatenation of arrays."""
    end = 0
    yield np.zeros(1, np.int64)
    for part in parts:
        yield end + np.cumsum(part, dtype=np.int64)
        end += int(part.sum())
