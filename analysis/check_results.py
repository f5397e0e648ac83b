"""Recomputes the scores of the kept runs from what is kept, with public tools alone.

python -m analysis.check_results --corpora=DIR

DIR has a folder for each corpus, as for scripts/reproduce.sh. The kept predictions and
losses are scored by sacrebleu, sacremoses, rouge-score, seqeval, scikit-learn, SciPy,
or here, and not by `tasks/`. The exit code is 1 if a score is not that of its card.
"""

import collections
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sacrebleu
import sacremoses
from absl import flags
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import pearsonr, spearmanr
from seqeval import metrics as entities
from seqeval.scheme import IOB2
from sklearn import metrics as labels

from configs import base
from data.pairs import open_pairs
from data.table import TextColumns, open_table
from data.tokenizers.normalization import Normalizer
from data.understanding.tagged import TaggedDataset
from experiment.restore import read_config
from training.run_dir import RunDirectory
from utils import cli
from utils.errors import UserError

CORPORA = flags.DEFINE_string("corpora", "DIR", "Folder with a folder for each corpus.")
RESULTS = flags.DEFINE_string("results", "docs/results", "Folder of the kept runs.")
PREPARED = flags.DEFINE_string(
    "prepared", base.get_config().data.dir, "data.dir: where corpora are prepared."
)

TOLERANCE = 1e-6  # relative; losses are kept in float32
EMBEDDED = ("cldr", "cldr_fields", "python_stdlib")  # corpora without files
FOLDERS = {  # folders in --corpora with another name than their corpus
    **{name: f"{name}_zh" for name in ("afqmc", "chnsenticorp", "hmwp", "ocnli")},
    **{name: f"math_en/{name}" for name in ("mawps", "svamp")},
    **{"ptb_char": "ptb", "pydocs": "pydocs_fr"},
}
COUNTS = ("words", "characters", "bytes")  # of a text; scores depend on them

Scores = Iterator[tuple[str, float]]  # names and values


class KeptCard:
    """A score card of a kept run, with what was kept beside it."""

    def __init__(self, path: Path):
        directory = RunDirectory(path.parents[1])
        card = directory.read_json(f"eval/{path.name}")
        self.folder, self.stem = directory.path, path.stem
        self.cfg = read_config(directory)
        self.corpus = directory.read_json("about.json")["corpus"]
        self.split, self.protocol = card["split"], card["protocol"]
        self.values = {name: score["value"] for name, score in card["scores"].items()}
        if self.cfg.task == "language_modeling":
            self.values |= {name: self.protocol[name] for name in COUNTS}

    def predictions(self, references: Sequence, kind: str = "hypotheses") -> list[str]:
        """Reads a prediction for each reference; UserError if they are not kept."""
        path = self.folder / "samples" / f"{self.stem}.{kind}.txt"
        if not path.exists():
            raise UserError(f"no {kind} are kept")
        lines = path.read_bytes().decode("utf8").split("\n")[:-1]
        if len(lines) != len(references):
            cli.fail(f"{path}: {len(lines)} lines for {len(references)} references")
        return lines

    def open(self, opener: Callable[..., TextColumns] = open_table) -> TextColumns:
        """Opens the corpus; UserError where it is missing, or not that of the run."""
        cfg = self.cfg.data
        name = cfg.name.partition("/")[0]
        if name not in EMBEDDED:
            folder = Path(CORPORA.value).absolute() / FOLDERS.get(name, name)
            if not folder.is_dir():
                raise UserError(f"--corpora: {folder} does not exist")
            cfg.source_dir = str(folder)
        cfg.dir = PREPARED.value
        corpus = opener(cfg)
        was, here = " ".join(self.corpus.values()), f"{corpus.name} {corpus.version}"
        if was != here:
            raise UserError(f"the run is of {was}, and the corpus here is {here}")
        return corpus.reversed() if cfg.reverse else corpus

    def column(self, table: TextColumns, name: str) -> list[str]:
        """Reads a column of the split."""
        return [text for (text,) in table.read_columns(self.split, (name,))]


def main() -> int:
    """Prints the scores; returns 1 if two differ, else 0."""
    paths = sorted(Path(RESULTS.value).rglob("eval/*.json"))
    if not paths:
        raise UserError(f"--results={RESULTS.value} contains no kept runs")
    counts = collections.Counter()
    for kept in map(KeptCard, paths):
        title, (found, reason) = f"{kept.folder} {kept.stem}", recompute(kept)
        missing = [k for k, x in kept.values.items() if x is None or k not in found]
        for name in (name for name in kept.values if name not in missing):
            value, other = kept.values[name], found[name]
            is_equal = math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=1e-9)
            verdict = "equal" if is_equal else "DIFFERENT"
            counts[verdict] += 1
            print(f"{title}  {name:20} {value:15.6f} {other:15.6f}  {verdict}")
        if missing:
            counts["not checked"] += len(missing)
            print(f"{title}  not checked: {', '.join(missing)} ({reason})")
    print(", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items())))
    return int(counts["DIFFERENT"] > 0)


def recompute(kept: KeptCard) -> tuple[dict[str, float], str]:
    """Returns the scores that can be recomputed, and why others cannot."""
    found, reasons = {}, []
    for score in (score_losses, SCORERS.get(kept.cfg.task, lambda _: ())):
        try:
            for name, value in score(kept):
                found[name] = value
        except UserError as error:
            reasons.append(str(error))
    return found, "; ".join(reasons) or "it is not recomputed here"


def score_losses(kept: KeptCard) -> Scores:
    """Recomputes the mean loss and what follows from it."""
    path = kept.folder / "eval" / f"{kept.stem}.npz"
    if not path.exists():
        raise UserError("no losses are kept")
    with np.load(path) as arrays:
        total, weight = (float(arrays[k].sum(dtype=float)) for k in ("total", "weight"))
    words, characters, size = (kept.values.get(name, math.inf) for name in COUNTS)
    yield "loss", total / weight
    yield "perplexity", math.exp(min(total / weight, 700))
    yield "word_perplexity", math.exp(min(total / words, 700))
    for unit, number in (("token", weight), ("character", characters), ("byte", size)):
        yield f"bits_per_{unit}", total / number / math.log(2)


def count_text(kept: KeptCard) -> Scores:
    """Counts a text again; the end of each example is a word and a character."""
    texts = [text for (text,) in kept.open().read(kept.split)]
    sizes = [(len(text.split()), len(text), len(text.encode())) for text in texts]
    yield from zip(COUNTS, np.sum(sizes, axis=0) + len(texts), strict=True)


def score_texts(kept: KeptCard) -> Scores:
    """Recomputes the scores of generated texts."""
    corpus, protocol = kept.open(open_pairs), kept.protocol
    columns = [kept.column(corpus, name) for name in kept.cfg.data.reference_columns]
    language = corpus.languages[1] if corpus.languages else ""
    normalizer = Normalizer(language, protocol["moses_tokenize"], protocol["lowercase"])
    pairs, rows = [], list(zip(corpus.read(kept.split), *columns, strict=True))
    for text, ((_, target), *others) in zip(kept.predictions(rows), rows, strict=True):
        row = map(normalizer.normalize_reference, (target, *filter(str.strip, others)))
        pairs.append((text, [re.sub("[\r\n]", " ", reference) for reference in row]))
    is_match = [text.strip() in map(str.strip, row) for text, row in pairs]
    yield "exact_match", 100 * np.mean(is_match)
    for name in kept.values:
        if f"{name}_signature" in protocol and name != "bleu_compound_split":
            yield name, (rouge if "rouge" in name else corpus_score)(name, kept, pairs)


def corpus_score(name: str, kept: KeptCard, pairs: list) -> float:
    """Computes BLEU, chrF or TER by sacrebleu, with the options in its signature."""
    parts = kept.protocol[f"{name}_signature"].split("|")
    options = dict(part.split(":", 1) for part in parts)
    is_on = {key: value in ("yes", "lc") for key, value in options.items()}
    if name == "ter":
        metric = sacrebleu.TER(is_on["norm"], not is_on["punct"], is_on["asian"])
    elif name == "chrf":
        metric = sacrebleu.CHRF(int(options["nc"]), int(options["nw"]))
    else:
        metric = sacrebleu.BLEU(is_on["case"], True, options["tok"], options["smooth"])
    texts = [[hypothesis, *references] for hypothesis, references in pairs]
    if tokenizer := kept.protocol.get(f"{name}_tokenizer"):
        moses = sacremoses.MosesTokenizer(tokenizer.rpartition(", ")[2])
        tokenize = functools.partial(moses.tokenize, return_str=True, escape=False)
        texts = [list(map(tokenize, row)) for row in texts]
    hypotheses, *references = map(list, itertools.zip_longest(*texts))
    return metric.corpus_score(hypotheses, references).score


def rouge(name: str, kept: KeptCard, pairs: list) -> float:
    """Computes ROUGE by rouge-score; UserError if the words are not its own."""
    signature = kept.protocol[f"{name}_signature"]
    if "English words" not in signature:
        raise UserError("rouge-score has no words of this language")
    scorer, values = RougeScorer([name], use_stemmer=True), []
    end = re.compile(r"(?<=[.!?])\s+" if "sentences" in signature else "\n")
    for text, row in pairs:
        text, *row = (end.sub("\n", text) for text in (text, *row))
        values.append(scorer.score_multi(row, text)[name].fmeasure)
    return 100 * np.mean(values)


def score_labels(kept: KeptCard) -> Scores:
    """Recomputes the scores of labels, relations and grades."""
    actual = kept.column(kept.open(), kept.cfg.data.label_column)
    found = kept.predictions(actual)
    if kept.cfg.head.regression:
        grades = np.asarray([actual, found], float)
        yield "pearson", 100 * pearsonr(*grades).statistic
        yield "spearman", 100 * spearmanr(*grades).statistic
        yield "mean_squared_error", labels.mean_squared_error(*grades)
        return
    yield "accuracy", 100 * labels.accuracy_score(actual, found)
    yield "macro_f1", 100 * labels.f1_score(actual, found, average="macro")
    yield "matthews", 100 * labels.matthews_corrcoef(actual, found)
    negative = kept.protocol.get("micro_f1", "").removeprefix("without ").split(", ")
    micro = {"labels": sorted({*actual, *found} - {*negative}), "average": "micro"}
    for name in ("precision", "recall", "f1"):
        score = getattr(labels, f"{name}_score")
        yield f"micro_{name}", 100 * score(actual, found, **micro)
    # Official score of SemEval-2010 task 8: the mean F1 of the relations that occur,
    # right with their direction and counted whatever it is.
    sides = [[label.partition("(")[0] for label in side] for side in (actual, found)]
    right = [a.partition("(")[0] for a, b in zip(actual, found, strict=True) if a == b]
    relations = {*sides[0]} - {"Other"}
    sizes = [sum(side.count(name) for side in sides) for name in relations]
    yield "official_f1", 200 * np.mean([*map(right.count, relations)] / np.array(sizes))


def score_tags(kept: KeptCard) -> Scores:
    """Recomputes the scores of tags and intents."""
    dataset = TaggedDataset(kept.cfg.data, kept.open(), {})
    actual, intents = dataset.tags(kept.split), dataset.intents(kept.split)
    found = [line.split(" ") for line in kept.predictions(actual)]
    yield "token_accuracy", 100 * entities.accuracy_score(actual, found)
    for name in ("f1", "precision", "recall"):
        score = getattr(entities, f"{name}_score")
        yield name, 100 * score(actual, found)
        yield f"strict_{name}", 100 * score(actual, found, mode="strict", scheme=IOB2)
    is_right = np.asarray([a == b for a, b in zip(actual, found, strict=True)])
    if intents:
        others = kept.predictions(intents, "intents")
        is_found = np.asarray(intents) == np.asarray(others)
        yield "intent_accuracy", 100 * is_found.mean()
        is_right &= is_found
    yield "sentence_accuracy", 100 * is_right.mean()


SCORERS: dict[str, Callable[[KeptCard], Scores]] = {
    "language_modeling": count_text,
    **dict.fromkeys(("translation", "text_to_text"), score_texts),
    **dict.fromkeys(("classification", "relation_extraction"), score_labels),
    "tagging": score_tags,
}

if __name__ == "__main__":
    cli.run_main(main)
