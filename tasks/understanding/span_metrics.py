"""F1 of entities of IOB2 tags, and scores of whole sentences.

Entities are those of seqeval (Nakayama 2018). "conlleval" is its default, which counts
as the script of the CoNLL shared tasks does: I-X after another type begins an entity.
"strict" (mode="strict", scheme=IOB2) ignores entities without B-X. All scores are
percentages.
"""

from collections.abc import Iterable, Sequence
from importlib import metadata

import numpy as np
from jaxtyping import Bool, Float

from tasks.bootstrap import Scores, score_examples

MODES = ("conlleval", "strict")

Tags = Sequence[str]  # of the words of a sentence
Entity = tuple[str, int, int]  # type, first word, last word
Statistics = Float[np.ndarray, "N K"]  # counts of each sentence


def find_entities(tags: Tags, mode: str) -> set[Entity]:
    """Returns the entities of a sentence as one of the MODES counts them."""
    # seqeval imports scikit-learn, which takes a second.
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2
    from seqeval.scheme import Tokens as SchemeTokens

    if mode == "conlleval":
        return set(get_entities(list(tags)))
    entities = SchemeTokens(list(tags), IOB2).entities
    return {(entity.tag, entity.start, entity.end - 1) for entity in entities}


def score_tags(
    references: Sequence[Tags],
    predictions: Sequence[Tags],
    intents: tuple[Sequence[str], Sequence[str]] | None = None,
    *,
    entities: bool = True,
    intervals: bool = False,
) -> Scores:
    """Returns precision, recall and F1 of entities, and accuracies.

    "f1", "precision" and "recall" count as conlleval, "strict_f1" and so on strictly;
    "token_accuracy" is that of tags, "sentence_accuracy" that of sentences whose tags
    (and intent) are all correct, "intent_accuracy" that of intents.

    Args:
      intents: references and predictions of the intent of each sentence, if any.
      entities: whether tags mark entities; else there are accuracies only.
    """
    columns = list(_token_counts(references, predictions, intents))
    for mode in MODES if entities else ():
        columns += _entity_counts(references, predictions, mode)
    statistics = np.stack(columns, axis=1).astype(float)

    def score(indices):
        drawn = np.bincount(indices, minlength=len(statistics))
        sums = drawn @ statistics
        correct, tokens, sentences, right_intents, number = sums[:5]
        accuracies = {
            "token_accuracy": _percentage(correct, tokens),
            "sentence_accuracy": _percentage(sentences, number),
        }
        if intents:
            accuracies["intent_accuracy"] = _percentage(right_intents, number)
        if not entities:
            return accuracies
        strict = {f"strict_{k}": x for k, x in f1_scores(*sums[8:]).items()}
        return f1_scores(*sums[5:8]) | strict | accuracies

    return score_examples(len(statistics), score, intervals=intervals)


def f1_scores(correct: float, found: float, actual: float) -> dict[str, float]:
    """Returns F1, precision and recall, 0 where they are undefined.

    Args:
      correct: number of entities that are predicted correctly.
      found: number of predicted entities.
      actual: number of entities of the references.
    """
    return {
        "f1": _percentage(2 * correct, found + actual),
        "precision": _percentage(correct, found),
        "recall": _percentage(correct, actual),
    }


def entity_table(
    references: Sequence[Tags], predictions: Sequence[Tags], mode: str = "conlleval"
) -> list[dict[str, str | float]]:
    """Returns precision, recall, F1 and support of each type of entity, sorted."""
    counts: dict[str, np.ndarray] = {}
    for tags, found in zip(references, predictions, strict=True):
        actual, predicted = (find_entities(side, mode) for side in (tags, found))
        for column, entities in enumerate((actual & predicted, predicted, actual)):
            for kind, _, _ in entities:
                counts.setdefault(kind, np.zeros(3, int))[column] += 1
    rows = []
    for kind in sorted(counts):
        scores = f1_scores(*counts[kind])
        names = ("precision", "recall", "f1")
        row = {"class": kind, **{name: scores[name] for name in names}}
        rows.append(row | {"support": int(counts[kind][2])})
    return rows


def forbidden_transitions(names: Sequence[str]) -> Bool[np.ndarray, "L1 L"]:
    """Returns which tags cannot follow which in IOB2; last row: begin a sentence.

    I-X follows B-X and I-X only.
    """
    forbidden = np.zeros((len(names) + 1, len(names)), bool)
    for column, name in enumerate(names):
        if name.startswith("I-"):
            allowed = (f"B-{name[2:]}", name)
            forbidden[:-1, column] = [other not in allowed for other in names]
            forbidden[-1, column] = True
    return forbidden


def span_protocol() -> dict[str, str]:
    """Returns how entities are counted, for a score card."""
    version = f"seqeval {metadata.version('seqeval')}"
    return {
        "f1": f"{version}, default mode (conlleval)",
        "strict_f1": f"{version}, mode=strict, scheme=IOB2",
    }


def _percentage(part: float, whole: float) -> float:
    return float(100 * part / whole) if whole else 0.0


def _entity_counts(references, predictions, mode: str) -> Iterable[list[int]]:
    """Returns correct, predicted and actual entities of each sentence, by columns."""
    rows = []
    for tags, found in zip(references, predictions, strict=True):
        actual, predicted = (find_entities(side, mode) for side in (tags, found))
        rows.append((len(actual & predicted), len(predicted), len(actual)))
    return zip(*rows, strict=True)


def _token_counts(references, predictions, intents) -> Iterable[list[int]]:
    """Returns counts of each sentence, by columns.

    They are correct tags, tags, whether the sentence and whether the intent is right,
    and 1.
    """
    rows = []
    known, found = intents or ([""] * len(references),) * 2
    sides = zip(references, predictions, known, found, strict=True)
    for tags, predicted, intent, predicted_intent in sides:
        correct = sum(a == b for a, b in zip(tags, predicted, strict=True))
        is_right = intent == predicted_intent
        is_whole = is_right and correct == len(tags)
        rows.append((correct, len(tags), is_whole, is_right, 1))
    return zip(*rows, strict=True)
