"""Python's documentation in English and French: paragraphs, documents in order."""

from data.corpora.translation.parallel_text import ParallelText
from utils.errors import UserError

PAIRS = ("en-fr", "fr-en")


class Pydocs(ParallelText):
    """Paragraphs in the order of their documents (`doc`), with their places (`pos`).

    A jump of `pos` is a paragraph left out because it is not translated. `seen` is "1"
    where the English paragraph is in the training split, too; training has none.
    """

    @classmethod
    def check_name(cls, config: str) -> None:
        """Raises UserError unless `config` is one of the PAIRS."""
        if config not in PAIRS:
            raise UserError(
                f"pydocs has no config {config!r}; it has {', '.join(PAIRS)}"
            )
