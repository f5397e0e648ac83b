"""PG-19 (Rae et al. 2020): books of before 1919 from Project Gutenberg."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from data.corpora import download
from data.corpora.builders import PublicText
from data.corpora.text_files import read_text
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
NUM_DOWNLOADS = 8  # at a time


class Pg19(PublicText):
    """28,602, 50 and 100 books, one an example, in the order of their files' names.

    11.7 GB in training. Titles and dates are not kept. TFDS's builder of this name
    needs TensorFlow. `source_dir` is a folder with `train/`, `validation/` and `test/`,
    their books as `.txt` or `.txt.gz`; None downloads them, and keeps them in the
    download folder.
    """

    HOMEPAGE = "https://github.com/google-deepmind/pg19"
    LICENSE = "Apache 2.0; the books are in the public domain in the USA"
    RECORD_CHECKSUMS = True

    def _split_generators(self, dl_manager):
        store = download.open_store(self, dl_manager)
        books = {
            split: list_books(split)
            if store.source_dir is None
            else find_books(store.source_dir / split)
            for split in SPLITS
        }
        for split, (count, _) in SPLITS.items():
            if len(books[split]) != count:
                raise UserError(
                    f"{len(books[split])} books of the split {split} instead of "
                    f"{count}; they are published at {ADDRESS}/{split}"
                )
        if store.source_dir is None:
            books = {
                split: fetch_books(split, names, store.folder / split)
                for split, names in books.items()
            }
        return {
            split: self._generate_examples(map(read_text, verify(paths, split)))
            for split, paths in books.items()
        }


def verify(paths: Iterable[Path], split: str) -> Iterator[Path]:
    """Yields the books; UserError after the last unless they are the published ones."""
    count, expected = SPLITS[split]
    total = hashlib.sha256()
    for path in paths:
        checksum = download.hash_file(path, "sha256", packed=False)
        total.update(f"{path.name.removesuffix('.gz')} {checksum}\n".encode())
        yield path
    if total.hexdigest() != expected:
        raise UserError(
            f"checksum mismatch: the {count} books of the split {split} have together "
            f"{total.hexdigest()}, expected {expected}; put those of {ADDRESS}/{split} "
            "in a folder and give it as --config.data.source_dir"
        )


def find_books(folder: Path) -> list[Path]:
    """Returns the books of a folder, sorted by name."""
    paths = [*folder.glob("*.txt"), *folder.glob("*.txt.gz")]
    return sorted(paths, key=lambda path: path.name.removesuffix(".gz"))


def list_books(split: str) -> list[str]:
    """Returns the sorted names of the books; UserError if they cannot be listed."""
    names, query = [], {"prefix": f"{split}/", "fields": "items/name,nextPageToken"}
    try:
        while True:
            options = {"headers": download.HEADERS, "timeout": download.TIMEOUT}
            response = requests.get(LISTING, params=query, **options)
            response.raise_for_status()
            page = response.json()
            names += [item["name"] for item in page.get("items", ())]
            if "nextPageToken" not in page:
                return sorted(name.rsplit("/", 1)[-1] for name in names)
            query["pageToken"] = page["nextPageToken"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot list {ADDRESS}/{split} ({error}): connect to the network, or give "
            f"--config.data.source_dir=DIR, a folder that holds {', '.join(SPLITS)}"
        ) from error


def fetch_books(split: str, names: list[str], folder: Path) -> Iterator[Path]:
    """Yields the books as files of `folder`, downloaded a few ahead."""

    def fetch(name: str) -> Path:
        path = folder / name
        if not path.exists():
            download.download(download.RemoteArchive(f"{ADDRESS}/{split}/{name}"), path)
        return path

    with ThreadPoolExecutor(NUM_DOWNLOADS) as pool:
        step = 8 * NUM_DOWNLOADS
        for start in range(0, len(names), step):
            yield from pool.map(fetch, names[start : start + step])
