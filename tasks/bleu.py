"""Scores of texts against references, by sacrebleu (Post 2018)."""

import sacrebleu

BOOTSTRAP = 1000  # resamplings of the sentences behind an interval

TOKENIZERS = {"zh": "zh", "ja": "char"}  # sacrebleu's, where words are not spaced


def score_text(
    hypotheses: list[str],
    references: list[str],
    language: str,
    *,
    intervals: bool = False,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """BLEU (Papineni et al. 2002) and chrF (Popovic 2015), and their signatures.

    Args:
      intervals: adds `low` and `high`, a 95% interval by bootstrap.
    """
    metrics = {
        "bleu": sacrebleu.BLEU(tokenize=TOKENIZERS.get(language, "13a")),
        "chrf": sacrebleu.CHRF(),
    }
    scores, signatures = {}, {}
    samples = BOOTSTRAP if intervals else 1
    for name, metric in metrics.items():
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=samples)
        scores[name] = {"value": result.score}
        if intervals:
            scores[name]["low"] = float(result._mean - result._ci)
            scores[name]["high"] = float(result._mean + result._ci)
        signatures[f"{name}_signature"] = str(metric.get_signature())
    return scores, signatures


def exact_match(hypotheses: list[str], references: list[str]) -> float:
    """Share of hypotheses that equal their reference, in percent."""
    equal = sum(
        a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True)
    )
    return 100 * equal / len(references)
