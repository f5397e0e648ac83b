"""A user's own text: `train.txt`, `valid.txt` and so on, or a folder for each split."""

from data.corpora import local_files
from data.corpora.local_files import SplitFiles, find_file


class PlainText(local_files.LocalText):
    """A file for each split with an example on each line, or a folder of documents."""

    @classmethod
    def expected_files(cls, config):
        return "train.txt, valid.txt (plain or .gz), or folders train, valid of .txt"

    @classmethod
    def find_splits(cls, config, folder):
        paths = {stem: find_file(folder, f"{stem}.txt") for stem in local_files.STEMS}
        files = [
            (local_files.STEMS[stem], path.name, SplitFiles({"text": (path,)}))
            for stem, path in paths.items()
            if path
        ]
        return files + local_files.find_documents(folder)


class Novels(local_files.LocalText):
    """English novels of 1839-1929, split by book, in the order of their file names.

    Books break lines differently, so all white space becomes single spaces.
    """

    @classmethod
    def expected_files(cls, config):
        return "folders train, valid and test of .txt or .txt.gz files, a book each"

    @classmethod
    def find_splits(cls, config, folder):
        return local_files.find_documents(folder)

    def read(self, paths, whole):
        return (" ".join(text.split()) for text in super().read(paths, whole))
