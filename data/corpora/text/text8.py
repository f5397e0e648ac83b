"""text8 (Mahoney 2006): 10^8 characters of Wikipedia, a to z and single spaces."""

from data.corpora import remote_files
from data.corpora.public import PublicText
from data.corpora.text.enwik8 import cut

# SHA-1 of the text, by GluonNLP's Text8.
ADDRESS = "http://mattmahoney.net/dc/text8.zip"
CHECKSUM = "0dc3edebc970dcc96137e7deda4d9995af9d93de"
HELD_OUT = 5_000_000  # characters at the end for test, as many before for validation


class Text8(PublicText):
    """90M characters for training, the next 5M for validation, the last 5M for test.

    The text has no lines. A split is one example, so that it is read as one stream and
    the only `<eos>` is at its end.

    Attributes:
      source_dir: folder with text8 or text8.zip; None downloads it (31 MB).
    """

    HOMEPAGE = "http://mattmahoney.net/dc/textdata.html"
    LICENSE = "GFDL and CC BY-SA, as Wikipedia"

    def _split_generators(self, dl_manager):
        source = remote_files.RemoteFile(ADDRESS, CHECKSUM, ("text8",), "text8")
        text = remote_files.read_bytes({"text8": source}, self.source_dir)["text8"]
        return {
            split: self._generate_examples(part)
            for split, part in cut(text, HELD_OUT).items()
        }

    def _generate_examples(self, text):
        yield 0, {"text": remote_files.decode("text8", text)}
