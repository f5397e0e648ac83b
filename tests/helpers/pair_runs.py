"""Small runs of text pairs on a table of sums."""

from configs.pairs import text_pairs
from helpers.labeled_runs import SIZES
from helpers.tables import write

HEADER = "question\tequation\tnumbers\tanswer\tother\ttopic"
METRICS = ("answer_accuracy", "rougeL", "exact_match", "bleu")


def rows(count, first=0):
    """Returns problems whose answers are in the column "answer"."""
    found = []
    for k in range(first, first + count):
        a, b = k % 7 + 1, k % 5 + 1
        question = f"add number1 to number0 in {('red', 'blue')[k % 2]}"
        prefix, other = "+ number0 number1", "number0 + number1"
        found.append(f"{question}\t{prefix}\t{a} {b}\t{a + b}\t{other}\t{k % 3}")
    return found


def write_sums(folder):
    """Writes a table of problems whose equation never changes."""
    for split, count in {"train": 40, "valid": 6, "test": 9}.items():
        write(folder / f"{split}.tsv", [HEADER, *rows(count)])


def pairs_config(folder, model="transformer", **changes):
    """Returns a config of a tiny model from question to equation."""
    cfg = text_pairs.get_config(model)
    cfg.model.update({"dropout": 0.0, **SIZES[model]})
    if model == "rnn":
        cfg.model.update({"conditional_gru": False, "input_feeding": False})
    cfg.data.update(source_dir=str(folder), dir=str(folder / "data"))
    cfg.data.update(cache_dir=str(folder / "cache"), tokenizer="word")
    cfg.data.update(source_column="question", target_column="equation")
    cfg.data.update(buckets=1, reference_columns=("other",))
    cfg.eval.metrics = METRICS
    cfg.optim.update(lr=2e-2, warmup=2, schedule="constant")
    cfg.decode.max_length = 8
    cfg.update_from_flattened_dict(changes)
    return cfg
