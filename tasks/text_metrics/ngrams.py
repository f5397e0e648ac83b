"""BLEU, chrF and TER of texts against references, by sacrebleu (Post 2018)."""

import functools
import math
import re
from importlib import metadata

import numpy as np
import sacrebleu

from tasks.text_metrics.base import Statistics, Texts
from utils.errors import UserError
from utils.languages import is_spaced, primary_language, sacrebleu_tokenizer

NUM_SAMPLES = 1000  # bootstrap samples of the sentences for an interval
COMPOUND = re.compile(r"(\S)-(\S)")


class SacrebleuStatistics(Statistics):
    """Statistics, score, interval and signature of a metric of sacrebleu.

    Intervals lie between 0 and `highest`.
    """

    def __init__(
        self,
        name: str,
        metric,
        texts: Texts,
        protocol: dict | None = None,
        *,
        highest: float = 100.0,
    ):
        self.name, self.metric, self.protocol = name, metric, protocol or {}
        self.highest = highest
        self.hypotheses, self.details = texts.hypotheses, {}
        width = max(map(len, texts.references))
        # sacrebleu has a list of all first references, one of all second ones, ...
        self.references = [
            [row[k] if k < len(row) else None for row in texts.references]
            for k in range(width)
        ]

    @functools.cached_property
    def rows(self):
        extract = self.metric._extract_corpus_statistics
        return np.asarray(extract(self.hypotheses, self.references), float)

    def score(self, sums):
        return self.metric._compute_score_from_stats(sums.tolist()).score

    def evaluate(self, *, intervals):
        count = NUM_SAMPLES if intervals else 1
        result = self.metric.corpus_score(
            self.hypotheses, self.references, n_bootstrap=count
        )
        entry = {"value": result.score}
        if intervals:
            ends = result._mean - result._ci, result._mean + result._ci
            entry["low"], entry["high"] = np.clip(ends, 0, self.highest).tolist()
        signature = {f"{self.name}_signature": str(self.metric.get_signature())}
        return entry, signature | self.protocol


class ChrF(sacrebleu.CHRF):
    """chrF of sacrebleu whose bootstrap accepts samples without any match.

    sacrebleu returns float32 scores but a float for such samples, and cannot average
    both together.
    """

    def _compute_f_score(self, statistics) -> float:
        return float(super()._compute_f_score(statistics))


class TER(sacrebleu.TER):
    """TER of sacrebleu whose bootstrap accepts samples without words of references.

    sacrebleu returns float32 scores but a float for such samples, and cannot average
    both together.
    """

    def _compute_score_from_stats(self, stats):
        result = super()._compute_score_from_stats(stats)
        result.score = float(result.score)
        return result


def bleu(texts: Texts) -> SacrebleuStatistics:
    """Computes BLEU (Papineni et al. 2002) of texts that sacrebleu tokenizes.

    Text of an unknown language is tokenized like English.
    """
    tokenize = sacrebleu_tokenizer(texts.language)
    return SacrebleuStatistics("bleu", sacrebleu.BLEU(tokenize=tokenize), texts)


def chrf(texts: Texts) -> SacrebleuStatistics:
    """Computes chrF (Popovic 2015)."""
    return SacrebleuStatistics("chrf", ChrF(), texts)


def ter(texts: Texts) -> SacrebleuStatistics:
    """Computes TER, the translation edit rate (Snover et al. 2006)."""
    unspaced = {"normalized": True, "asian_support": True}
    options = {} if is_spaced(texts.language) else unspaced
    return SacrebleuStatistics("ter", TER(**options), texts, highest=math.inf)


def bleu_moses_lowercase(texts: Texts) -> SacrebleuStatistics:
    """Computes BLEU of lower-cased Moses tokens, which older papers report."""
    name = "bleu_moses_lowercase"
    language = _spaced_language(name, texts.language)
    texts = _map_texts(_moses_tokenizer(language), texts)
    # Forced, so that sacrebleu does not warn of tokenized texts.
    metric = sacrebleu.BLEU(tokenize="none", lowercase=True, force=True)
    protocol = {f"{name}_tokenizer": f"{_moses_version()}, {language}"}
    return SacrebleuStatistics(name, metric, texts, protocol)


def bleu_compound_split(texts: Texts) -> SacrebleuStatistics:
    """Computes cased BLEU of Moses tokens whose compounds are split at hyphens.

    Papers on WMT report it from Luong et al. (2015) and Vaswani et al. (2017) on. As
    the script get_ende_bleu.sh of tensor2tensor, it replaces punctuation of Unicode,
    tokenizes, makes three tokens of rich-text, the middle one ##AT##-##AT##, and counts
    as multi-bleu.perl, without smoothing.
    """
    import sacremoses  # takes a second to import

    name = "bleu_compound_split"
    language = _spaced_language(name, texts.language)
    replace = sacremoses.MosesPunctNormalizer(language).replace_unicode_punct
    tokenize = _moses_tokenizer(language)
    texts = _map_texts(lambda text: split_compounds(tokenize(replace(text))), texts)
    metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    protocol = {f"{name}_tokenizer": f"{_moses_version()}, {language}, compounds split"}
    return SacrebleuStatistics(name, metric, texts, protocol)


def split_compounds(text: str) -> str:
    """Splits tokens at hyphens as tensor2tensor does, from left to right.

    A letter between two hyphens belongs to the first match only.
    """
    return COMPOUND.sub(r"\1 ##AT##-##AT## \2", text)


def moses_language(language: str) -> str:
    """Returns the primary language of a code, and English for an unknown one."""
    return primary_language(language) or "en"


def _spaced_language(name: str, code: str) -> str:
    if not is_spaced(code):
        raise UserError(
            f"eval.metrics={name!r} needs a language with spaces between words, not "
            f"{code!r}; choose 'bleu'"
        )
    return moses_language(code)


def _moses_tokenizer(language: str):
    import sacremoses  # takes a second to import

    moses = sacremoses.MosesTokenizer(language)
    return functools.partial(moses.tokenize, return_str=True, escape=False)


def _moses_version() -> str:
    return f"sacremoses {metadata.version('sacremoses')}"


def _map_texts(function, texts: Texts) -> Texts:
    references = [list(map(function, row)) for row in texts.references]
    hypotheses = list(map(function, texts.hypotheses))
    return Texts(hypotheses, references, texts.language, texts.columns)
