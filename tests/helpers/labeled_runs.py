"""Small runs of classifiers on a table of a user's own."""

import numpy as np

from configs import base

COLORS = ("red", "green", "blue")
FILLERS = tuple("abcdefgh")
SIZES = {
    "rnn": {"width": 16, "embedding_width": 16, "attention_width": 16},
    "transformer": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 32},
    "transformer_xl": {
        **{"width": 16, "layers": 1, "heads": 2, "feed_forward": 32},
        "memory_length": 8,
    },
}


def write_table(folder, rows_by_split):
    """Writes rows of text, perhaps a second text, and label as files of tabs."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in rows_by_split.items():
        header = ("text", "pair", "label") if len(rows[0]) == 3 else ("text", "label")
        lines = ["\t".join(row) for row in (header, *rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")


def colored_texts(count, seed):
    """Returns texts of fillers with one color, which is the label."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words = random.choice(FILLERS, random.integers(2, 9)).tolist()
        color = str(random.choice(COLORS))
        words.insert(int(random.integers(len(words) + 1)), color)
        rows.append((" ".join(words), color))
    return rows


def colored_pairs(count, seed):
    """Returns pairs of texts with the label "same" where their colors are equal."""
    texts = colored_texts(2 * count, seed)
    pairs = zip(texts[::2], texts[1::2], strict=True)
    names = {True: "same", False: "different"}
    return [(one, other, names[a == b]) for (one, a), (other, b) in pairs]


def write_colored(folder, make=colored_texts):
    """Writes a table whose labels can be learned exactly."""
    sizes = {"train": 200, "dev": 40, "test": 40}
    write_table(folder, {s: make(n, i) for i, (s, n) in enumerate(sizes.items())})


def labeled_config(folder, model="rnn", **changes):
    """Returns a config of a small classifier on the table in a folder."""
    cfg = base.get_config(model)
    cfg.task = "classification"
    cfg.model.update({"dropout": 0.0, **SIZES[model]})
    cfg.data.update(name="labeled_text", source_dir=str(folder))
    cfg.data.update(dir=str(folder / "data"), cache_dir=str(folder / "cache"))
    cfg.data.update(text_column="text", label_column="label", tokenizer="word")
    cfg.data.update(max_length=16, segment_length=8, batch_size=16, buckets=1)
    cfg.head.pooling = "attention"
    cfg.optim.update(lr=1e-2, schedule="constant", warmup=0)
    cfg.steps, cfg.every.eval, cfg.every.log, cfg.every.checkpoint = 60, 0, 20, 0
    cfg.update_from_flattened_dict(changes)
    return cfg
