"""enwik8 and text8 (Mahoney 2006): English Wikipedia as bytes and as letters."""

from data.corpora import text_files
from data.corpora.builders import STEMS, PublicText
from data.corpora.download import RemoteArchive, RemoteFile
from utils.errors import UserError

HELD_OUT = 5_000_000  # bytes at the end for test, and as many before for validation


class Enwik8(PublicText):
    r"""90M bytes for training, the next 5M for validation, the last 5M for test.

    An example is a line without its end. The end of an example, `<eos>`, stands for
    "\n", so that the tokens of a split are its bytes, each once and in order. A split
    that ends within a line has one `<eos>` more than bytes.

    The published split counts bytes and may cut a character of UTF-8 in two. Here the
    earlier split keeps it whole: a boundary moves by at most 3 bytes.

    Attributes:
      source_dir: folder with enwik8 or enwik8.zip; None downloads it (36 MB).
    """

    HOMEPAGE = "http://mattmahoney.net/dc/textdata.html"
    LICENSE = "GFDL and CC BY-SA, as Wikipedia"
    FILE = RemoteFile(
        RemoteArchive("http://mattmahoney.net/dc/enwik8.zip"),
        "enwik8",
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    )

    def files(self, store):
        return {split: [self.FILE] for split in STEMS}

    def read(self, split, paths):
        part = cut(text_files.read_bytes(paths[0]), HELD_OUT)[split]
        for number, line in enumerate(part.removesuffix(b"\n").split(b"\n"), 1):
            yield text_files.decode(f"enwik8 ({split})", line, number)


class Text8(Enwik8):
    """90M characters for training, the next 5M for validation, the last 5M for test.

    The text has no lines. A split is one example, so that it is read as one stream and
    the only `<eos>` is at its end. `source_dir` is a folder with text8 or text8.zip;
    None downloads it (31 MB).
    """

    FILE = RemoteFile(
        RemoteArchive("http://mattmahoney.net/dc/text8.zip"),
        "text8",
        "0dc3edebc970dcc96137e7deda4d9995af9d93de",  # SHA-1, by GluonNLP's Text8
    )

    def read(self, split, paths):
        part = cut(text_files.read_bytes(paths[0]), HELD_OUT)[split]
        yield text_files.decode("text8", part)


def cut(text: bytes, held_out: int) -> dict[str, bytes]:
    """Splits a text; validation and test data have `held_out` bytes each.

    Raises UserError if a split would be empty.
    """
    test = next_character(text, len(text) - held_out)
    validation = next_character(text, len(text) - 2 * held_out)
    if not 0 < validation < test < len(text):
        raise UserError(
            f"a text of {len(text)} bytes leaves no training split beside twice "
            f"{held_out} bytes: give the whole text"
        )
    parts = text[:validation], text[validation:test], text[test:]
    return dict(zip(STEMS, parts, strict=True))


def next_character(text: bytes, position: int) -> int:
    """Returns the first index from `position` on where a UTF-8 character begins."""
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position
