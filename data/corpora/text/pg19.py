"""PG-19 (Rae et al. 2020): books of before 1919 from Project Gutenberg."""

import hashlib
import http.client
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

from data.corpora.archives import digest, download, open_address
from data.corpora.download import open_store
from data.corpora.lines import open_unpacked, readable
from data.corpora.public import PublicText
from data.corpora.remote_files import decode
from utils.errors import UserError

ADDRESS = "https://storage.googleapis.com/deepmind-gutenberg"
LISTING = "https://storage.googleapis.com/storage/v1/b/deepmind-gutenberg/o"
# Number of books, and SHA-256 of the lines "<name> <its SHA-256>\n" of all, sorted by
# name: so 28,752 checksums, published in Hugging Face's dataset_infos.json of pg19,
# take three lines here.
SPLITS = {
    "train": (
        28_602,
        "343e1e60d3c6a8e4fb92f40b787fa20c63ce2a0a97dc2acbb3d891ce2ff11155",
    ),
    "validation": (
        50,
        "0efcb4aa0c24c28241767d15ea48acd7c821a887b9092da4b2bb13b00883a018",
    ),
    "test": (
        100,
        "e8240cbab0320c28df758c3ea4d15412b2da3419148b4fefe196921c4332b8df",
    ),
}
ABREAST = 8  # downloads at a time


class Pg19(PublicText):
    """28,602, 50 and 100 books, one an example, in the order of their files' names.

    11.7 GB in training. Titles and dates are not kept. TFDS's builder of this name
    needs TensorFlow.

    Attributes:
      source_dir: folder with `train/`, `validation/` and `test/`, their books as `.txt`
        or `.txt.gz`; None downloads them, and keeps them in the download folder.
    """

    HOMEPAGE = "https://github.com/google-deepmind/pg19"
    LICENSE = "Apache 2.0; the books are in the public domain in the USA"
    RECORD_CHECKSUMS = True

    def _split_generators(self, dl_manager):
        store = open_store(self, dl_manager)
        if store.source_dir is not None:
            books = {split: find_books(store.source_dir / split) for split in SPLITS}
        else:
            books = {split: list_books(split) for split in SPLITS}
        for split, found in books.items():
            check_number(found, split)
        if store.source_dir is None:
            books = {
                split: fetch_books(split, names, store.folder / split)
                for split, names in books.items()
            }
        return {
            split: self._generate_examples(verified(paths, split))
            for split, paths in books.items()
        }

    def _generate_examples(self, paths):
        for key, path in enumerate(paths):
            with readable(path), open_unpacked(path) as file:
                text = decode(str(path), file.read())
            if not text.strip():
                raise UserError(f"{path} is empty: fetch it again")
            yield key, {"text": text}


def check_number(books: Sequence, split: str) -> None:
    """Raises UserError unless the books are as many as published."""
    count, _ = SPLITS[split]
    if len(books) != count:
        raise UserError(
            f"{len(books)} books of the split {split} instead of {count}; they are "
            f"published at {ADDRESS}/{split}"
        )


def verified(paths: Iterable[Path], split: str) -> Iterator[Path]:
    """The books. Raises UserError, in the end, unless they are the published ones."""
    count, expected = SPLITS[split]
    found = hashlib.sha256()
    for path in paths:
        checksum = digest(path, "sha256", open_unpacked)
        found.update(f"{path.name.removesuffix('.gz')} {checksum}\n".encode())
        yield path
    if found.hexdigest() != expected:
        raise UserError(
            f"checksum mismatch: the {count} books of the split {split} have together "
            f"{found.hexdigest()}, expected {expected}; put those of {ADDRESS}/{split} "
            "in a folder and give it as --config.data.source_dir"
        )


def find_books(folder: Path) -> list[Path]:
    """The books of a folder by name."""
    found = [*folder.glob("*.txt"), *folder.glob("*.txt.gz")]
    return sorted(found, key=lambda path: path.name.removesuffix(".gz"))


def list_books(split: str) -> list[str]:
    """The names of the published books, sorted. Raises UserError."""
    names, query = [], {"prefix": f"{split}/", "fields": "items/name,nextPageToken"}
    try:
        while True:
            with open_address(f"{LISTING}?{urlencode(query)}") as response:
                page = json.load(response)
            names += [item["name"] for item in page.get("items", ())]
            if "nextPageToken" not in page:
                return sorted(name.rsplit("/", 1)[-1] for name in names)
            query["pageToken"] = page["nextPageToken"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(
            f"cannot list {ADDRESS}/{split} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {', '.join(SPLITS)}"
        ) from error


def fetch_books(split: str, names: list[str], folder: Path) -> Iterator[Path]:
    """The books as files of `folder`, downloaded a few ahead; kept from before."""

    def fetch(name: str) -> Path:
        path = folder / name
        if not path.exists():
            download(f"{ADDRESS}/{split}/{name}", path, lambda part: "")
        return path

    with ThreadPoolExecutor(ABREAST) as pool:
        for start in range(0, len(names), 8 * ABREAST):
            yield from pool.map(fetch, names[start : start + 8 * ABREAST])
