"""enwik8 (Mahoney 2006): the first 10^8 bytes of English Wikipedia in XML."""

from data.corpora import remote_files
from data.corpora.public import PublicText
from utils.errors import UserError

ADDRESS = "http://mattmahoney.net/dc/enwik8.zip"
CHECKSUM = "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"
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

    def _split_generators(self, dl_manager):
        source = remote_files.RemoteFile(ADDRESS, CHECKSUM, ("enwik8",), "enwik8")
        text = remote_files.read_bytes({"enwik8": source}, self.source_dir)["enwik8"]
        return {
            split: self._generate_examples(part, split)
            for split, part in cut(text, HELD_OUT).items()
        }

    def _generate_examples(self, text, split):
        for key, line in enumerate(text.removesuffix(b"\n").split(b"\n")):
            yield key, {"text": remote_files.decode(f"enwik8 ({split})", line, key + 1)}


def cut(text: bytes, held_out: int) -> dict[str, bytes]:
    """The last bytes for test, as many before them for validation, the others.

    Raises UserError where a split would be empty.
    """
    test = next_character(text, len(text) - held_out)
    validation = next_character(text, len(text) - 2 * held_out)
    if not 0 < validation < test < len(text):
        raise UserError(
            f"a text of {len(text)} bytes leaves no training split beside twice "
            f"{held_out} bytes: give the whole text"
        )
    return {
        "train": text[:validation],
        "validation": text[validation:test],
        "test": text[test:],
    }


def next_character(text: bytes, position: int) -> int:
    """The first place from `position` on at which a character of UTF-8 begins."""
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position
