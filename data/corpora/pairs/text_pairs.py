"""Text pairs of a user's own files: tables, or an object of JSON on each line.

    DIR/train.tsv  DIR/valid.tsv  DIR/test.tsv      or .jsonl, each plain or .gz

Columns have any names; see `labeled_text.py` for the formats. `data.name=text_pairs/zh`
names the language of the texts.
"""

from data.corpora.understanding.labeled_text import LabeledText
from utils.errors import UserError
from utils.languages import primary_language


class TextPairs(LabeledText):
    """Pairs of texts with any other columns, in the order of their files."""

    @property
    def language(self) -> str:
        """Language code of the texts; empty if the config names none."""
        return self.builder_config.name.rpartition("-")[0]

    @classmethod
    def check_name(cls, config):
        if config and primary_language(config) is None:
            raise UserError(
                f"{cls.name}/{config}: {config!r} is no known language; name it "
                f"{cls.name}, or with the code of its language, such as {cls.name}/zh"
            )
