"""Source text of the running Python's standard library: long text, no download."""

import hashlib
import io
import platform
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from data.corpora.builders import PublicText
from utils.errors import UserError

TESTS = {"test", "tests", "idle_test"}
SHARES = 20  # of all files: one for validation, one for test, the others for training


class PythonStdlib(PublicText):
    """An example for each file, sorted by path, without tests and repeated files.

    The config is Python's version, so that another Python prepares another corpus. A
    file's split depends on its path alone.
    """

    HOMEPAGE = "https://docs.python.org/3/library"
    LICENSE = "PSF License Agreement"
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=platform.python_version())
    ]

    def _split_generators(self, dl_manager):
        texts = {"train": [], "validation": [], "test": []}
        for path, text in read_library(Path(sysconfig.get_path("stdlib"))):
            texts[choose_split(path)].append(text)
        return {split: self._generate_examples(texts[split]) for split in texts}


def choose_split(path: str) -> str:
    """Returns the split of a file, by its path relative to the library."""
    share = int(hashlib.sha256(path.encode()).hexdigest(), 16) % SHARES
    return {0: "validation", 1: "test"}.get(share, "train")


def read_library(library: Path) -> Iterator[tuple[str, str]]:
    """Yields (path, text) of every module, sorted by path, without repeated texts.

    Raises UserError if no module has source text.
    """
    seen = set()
    for path in sorted(path.as_posix() for path in find_modules(library)):
        text = decode_source((library / path).read_bytes())
        if text.strip() and text not in seen:
            seen.add(text)
            yield path, text
    if not seen:
        raise UserError(
            f"{library} holds no .py file: this Python comes without its library's "
            "source text, use another Python"
        )


def find_modules(library: Path) -> Iterator[Path]:
    """Yields the library's own .py files, none installed, generated or for tests."""
    for entry in library.iterdir():
        if entry.stem in sys.stdlib_module_names:
            for path in entry.rglob("*.py") if entry.is_dir() else [entry]:
                path = path.relative_to(library)
                if path.suffix == ".py" and TESTS.isdisjoint(path.parts):
                    yield path


def decode_source(source: bytes) -> str:
    """Decodes a module in the encoding it declares; returns "" if that fails."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        return ""
    return text.replace("\r\n", "\n")
