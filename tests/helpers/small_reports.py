"""Small run and sweep directories for the tests of reports."""

import json
from pathlib import Path
from xml.etree import ElementTree

from analysis.report.comparison import Comparison
from analysis.report.content import Content
from analysis.report.renderers import render_html
from analysis.report.runs import read_runs
from sweeps.launch import VERSION
from training.run_dir import FORMAT

ROOT = Path(__file__).parents[2]

SAMPLES = [
    {"source": "4 o'clock", "reference": "4 Uhr", "hypothesis": "4 Uhr"},
    {"source": "5 o'clock", "reference": "5 Uhr", "hypothesis": "6 Uhr"},
    {"source": "6 o'clock", "reference": "6 Uhr", "hypothesis": "6 Uhr"},
]

TRANSLATION = {
    "bleu": {"value": 91.26, "low": 90.14, "high": 92.36},
    "chrf": {"value": 95.5},
    "exact_match": {"value": 80.0},
    "loss": {"value": 0.12345},
}

TEXT = {
    "loss": {"value": 4.5},
    "perplexity": {"value": 90.017},
    "word_perplexity": {"value": 130.5},
    "bits_per_byte": {"value": 1.4321},
}

BASELINES = {
    "unigram": {"loss": 3.7064},
    "copy": {"bleu": 13.7, "exact_match": 3.2},
    "nearest_neighbour": {"bleu": 31.9, "exact_match": 0.0},
}

ATTENTION = {
    "source": ["4", "o'clock", "<eos>"],
    "target": ["4", "<eos>"],
    "weights": [[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]],
    "layer": "decoder/layers_1",
    "layers": 2,
    "heads": 4,
}

METRICS = [
    {"step": 1, "split": "train", "loss": 7.0, "tokens_per_second": 9.0, "seconds": 10},
    {"step": 2, "split": "train", "loss": 6.0, "tokens_per_second": 50, "seconds": 20},
    {"step": 2, "split": "validation", "loss": 5.5, "bleu": 2.5},
    {"step": 3, "split": "train", "loss": 5.0, "tokens_per_second": 70, "seconds": 30},
    {"step": 4, "split": "train", "loss": 4.0, "tokens_per_second": 60, "seconds": 75},
    {"step": 4, "split": "validation", "loss": 4.5, "bleu": None},
]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf8")


def make_run(
    path,
    model="rnn",
    *,
    task="translation",
    split="test",
    step=4,
    scores=TRANSLATION,
    baselines=BASELINES,
    data="aaaa",
    samples=SAMPLES,
    metrics=METRICS,
    attention=ATTENTION,
    width=16,
    device="cpu",
    tables=None,
):
    """Writes a run directory with the files of train.py and eval.py."""
    config = {
        "seed": 3,
        "task": task,
        "steps": 4,
        "model": {"name": model, "width": width},
        "data": {"name": "toy/en-de", "dir": str(path)},
    }
    about = {
        "format": FORMAT,
        "devices": [device],
        "parameters": 1234567,
        "corpus": {"name": "toy/en-de", "version": "1.0.0"},
        "commit": "0123456789abcdef+",
        "versions": {"jax": "0.10"},
    }
    card = {
        "split": split,
        "step": step,
        "scores": scores,
        "protocol": {"data": data, "search": "greedy"},
        "baselines": baselines,
        **(tables or {}),
    }
    write_json(path / "config.json", config)
    write_json(path / "about.json", about)
    write_json(path / "eval" / f"{split}-{step}.json", card)
    write_lines(path / "samples" / f"{split}-{step}.jsonl", samples)
    write_lines(path / "metrics.jsonl", metrics)
    if attention:
        write_json(path / "plots" / f"attention-{split}-{step}.json", attention)
    return str(path)


def compare(*paths):
    return Comparison.from_runs(read_runs(paths))


def make_sweep(folder, count=16, *, direction="min"):
    """Writes a sweep whose learning rate matters and whose width does not."""
    trials = []
    for number in range(count):
        rate, value = (0.1, 0.2, 0.3, 0.4)[number % 4], number % 4 + number / 1000
        run = make_run(
            folder / "trials" / f"{number:04}", width=16 + number // 8, attention=None
        )
        (folder / "trials" / f"{number:04}" / "eval" / "test-4.json").unlink()
        assert run.endswith(f"{number:04}")
        point = {"optim.lr": rate, "model.width": 16 + number // 8}
        trials.append({"trial": number, "state": "done", "point": point})
        trials[-1] |= {"value": value, "step": 4}
        trials[-1] |= {"chip_seconds": 900.0, "lost_seconds": 90.0}
    trials.append({"trial": count, "state": "failed", "point": {}, "value": None})
    metric = {"split": "validation", "name": "loss", "direction": direction}
    config = {"task": "translation", "keep": {"metric": None}}
    description = {"config": config, "space": {}, "metric": metric, "version": VERSION}
    write_json(folder / "sweep.json", description)
    write_lines(folder / "trials.jsonl", trials)
    return str(folder)


def content_of(*paths):
    return Content.from_paths(paths)


def page_of(*paths):
    page = render_html(content_of(*paths))
    return page, ElementTree.fromstring(page)


def text_of(element):
    return "".join(element.itertext())


def two_runs(folder):
    """Writes two translation runs that differ in model, width and one hypothesis."""
    other = [SAMPLES[0], {**SAMPLES[1], "hypothesis": "5 Uhr"}, SAMPLES[2]]
    return (
        make_run(folder / "a", "rnn"),
        make_run(folder / "b", "transformer", width=32, samples=other),
    )
