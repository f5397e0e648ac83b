"""Tiny Shakespeare (Karpathy 2015): 1,115,394 characters of plays, of 65 kinds."""

from data.corpora.builders import PublicText
from data.corpora.download import RemoteArchive, RemoteFile
from data.corpora.text_files import read_text, split_lines


class Tinyshakespeare(PublicText):
    r"""The first 90% of the characters for training, the others for validation.

    This is the split of nanoGPT, 1,003,854 and 111,540 characters; there is no test
    split. An example is a line without its end. `<eos>` stands for "\n", so that the
    tokens of the "char" tokenizer are the characters. The training text ends within a
    line and so has one `<eos>` more. `source_dir` is a folder with the published file;
    None downloads it.
    """

    HOMEPAGE = "https://github.com/karpathy/char-rnn"
    LICENSE = "MIT; the plays are in the public domain"
    ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data"
    FILE = RemoteFile(
        RemoteArchive(f"{ADDRESS}/tinyshakespeare/input.txt"),
        "input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )

    def files(self, store):
        return {split: [self.FILE] for split in ("train", "validation")}

    def read(self, split, paths):
        text = read_text(paths[0])
        boundary = len(text) * 9 // 10
        parts = {"train": text[:boundary], "validation": text[boundary:]}
        return split_lines(parts[split])
