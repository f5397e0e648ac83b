"""Documents of sentences in the texts of a corpus.

How a text is divided depends on the corpus: a document is an example, an article or
what blank lines separate, and a sentence is a line or ends with its punctuation.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

Document = list[str]  # its sentences

ARTICLE = re.compile("= [^=].* =")  # title of an article of WikiText
HEADING = re.compile("= .+ =")
WIKITEXT_END = re.compile(r"(?<= [.!?]) ")
# The end of a sentence of prose, quotes included, before a capital letter or a quote.
PROSE_END = re.compile(r"""([^\W\d_]*)[.!?]+["'”’)\]]* (?=["'“‘(\[]*[A-Z0-9])""")
ABBREVIATIONS = frozenset(
    (
        *("Mr", "Mrs", "Ms", "Dr", "St", "Messrs", "Prof", "Rev", "Hon", "Esq"),
        *("Capt", "Col", "Gen", "Lt", "Sgt", "Mme", "Mlle", "vs"),
    )
)


def lines_of_example(texts: Iterable[str]) -> Iterator[Document]:
    """Yields each text as a document with a sentence on each line."""
    for text in texts:
        yield [line.rstrip() for line in text.split("\n")]


def articles(texts: Iterable[str]) -> Iterator[Document]:
    """Yields the articles of WikiText, whose sentences end in " . ".

    Headings are left out, as in the text of BERT (Devlin et al. 2019, section 3.1). A
    heading has a blank line before and after it; other lines may look like one.
    """
    sentences: Document = []
    lines = itertools.chain([""], map(str.strip, texts), [""])
    before, line = "", next(lines)
    for after in lines:
        is_heading = not before and not after and HEADING.fullmatch(line)
        if is_heading and ARTICLE.fullmatch(line):
            yield sentences
            sentences = []
        elif not is_heading:
            sentences += WIKITEXT_END.split(line)
        before, line = line, after
    yield sentences


def books(texts: Iterable[str]) -> Iterator[Document]:
    """Yields each text as a document of prose, whatever its line breaks are."""
    for text in texts:
        yield split_prose(" ".join(text.split()))


def split_prose(text: str) -> Document:
    """Splits prose with single spaces after the punctuation that ends a sentence."""
    sentences, start = [], 0
    for match in PROSE_END.finditer(text):
        word = match[1]
        is_initial = len(word) == 1 and word.isupper() and word != "I"
        if word not in ABBREVIATIONS and not is_initial:
            sentences.append(text[start : match.end() - 1])
            start = match.end()
    return [*sentences, text[start:]]


def paragraphs(texts: Iterable[str]) -> Iterator[Document]:
    """Yields what blank lines separate, with a sentence on each line.

    A text of several lines begins and ends documents of its own.
    """
    sentences: Document = []
    for text in texts:
        lines = text.split("\n")
        is_whole = len(lines) > 1
        for line in ["", *lines, ""] if is_whole else lines:
            if line.strip():
                sentences.append(line.rstrip())
            elif sentences:
                yield sentences
                sentences = []
    yield sentences


# By corpus: how texts are divided, and what stands between two sentences.
DIVISIONS: dict[str, tuple[Callable[[Iterable[str]], Iterator[Document]], str]] = {
    "classics_zh": (lines_of_example, "\n"),
    "document_text": (lines_of_example, "\n"),
    "python_stdlib": (lines_of_example, "\n"),
    "wikitext2": (articles, " "),
    "wikitext103": (articles, " "),
    "novels": (books, " "),
    "pg19": (books, " "),
}
OTHERS = (paragraphs, " ")  # whose vocabularies may lack a line break


def divide(corpus: str, texts: Iterable[str], *, keep_ends: bool) -> Iterator[Document]:
    """Yields the documents of a corpus that hold text, without blank sentences.

    Args:
      corpus: name of the corpus, of which the part before a slash counts.
      keep_ends: whether sentences include what separates them from the next, a space
        or a line break, which tokenizers of characters need. Chinese has none.
    """
    division, end = DIVISIONS.get(corpus.partition("/")[0], OTHERS)
    for document in division(texts):
        sentences = [sentence for sentence in document if sentence.strip()]
        if keep_ends:
            sentences = [s if is_wide(s) else s + end for s in sentences]
        if sentences:
            yield sentences


def is_wide(sentence: str) -> bool:
    """Returns whether the end of a sentence is East Asian, with no space after it.

    Quotation marks and dots at its end are of any script.
    """
    widths = map(unicodedata.east_asian_width, sentence[-3:])
    return any(width in "WF" for width in widths)
