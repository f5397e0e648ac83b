"""Lines of a split and lines of input: one rule for both, and bounded memory."""

import io

import numpy as np
import pytest
import sacrebleu

from configs import parallel_text, plain_text
from experiment import train
from experiment.inference import evaluate
from experiment.restore import open_run
from training.loop import ExitStatus
from utils import cli_inputs, memory
from utils.errors import UserError

MAX_LENGTH = 12
LONG = "a b c d e " * 9
# A source and its reference: blank, too long and odd ones.
ODD = [
    *(("", "a b"), (" ", ""), ("\u3000\t", "c d"), (LONG, "a b c d e"), ("a b", LONG)),
    *((" a b", "a b"), ("a b ", "a b"), ("a\u2028b c", "a b c"), ("a\x0bb", "a b")),
    *(("a\rb c", "a\rb c"), ("e\u0301 <unk>", "e"), ("a\0b", "a b")),
    *(("a b c d e", "a b c d e"), ("b b a d", "b b a d"), ("e d c b", "e d c b")),
]
SIZES = {"width": 32, "embedding_width": 16, "attention_width": 16, "dropout": 0.0}
SIZES["initialization"] = "uniform"  # compiles faster than orthogonal matrices


def write_lines(path, lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """A run that has learned a little of copying letters."""
    folder = tmp_path_factory.mktemp("copier")
    random = np.random.default_rng(0)
    sizes = random.integers(1, 6, 400)
    lines = [" ".join(random.choice([*"abcde"], size)) for size in sizes]
    for split, count in {"train": 400, "valid": 9}.items():
        for language in ("en", "de"):
            write_lines(folder / f"{split}.{language}", lines[:count])
    for language, lines in zip(("en", "de"), zip(*ODD, strict=True), strict=True):
        write_lines(folder / f"test.{language}", lines)
    cfg = parallel_text.get_config("rnn")
    cfg.model.update(SIZES)
    cfg.data.update(source_dir=str(folder), dir=str(folder / "data"), buckets=1)
    cfg.data.update(tokenizer="char", max_length=MAX_LENGTH, tokens_per_batch=256)
    cfg.optim.update(lr=1e-2, schedule="constant", warmup=0)
    cfg.label_smoothing, cfg.steps, cfg.every.eval, cfg.every.log = 0.0, 150, 0, 50
    assert train.train(cfg, folder / "run") is ExitStatus.FINISHED
    return folder


@pytest.mark.parametrize("limit", [None, pytest.param(40, marks=pytest.mark.slow)])
def test_predicting_the_sources_of_a_split_gives_its_score(copier, limit, capsys):
    changes = {"decode": {"max_source_length": limit, "max_length": 20}}
    run = open_run(copier / "run", "last", changes)
    card, _ = evaluate(run, "test")
    told = capsys.readouterr().err.splitlines()
    # Of characters, with an end.
    limits = [min(2 * (len(source) + 1) + 10, 20) for source, _ in ODD]
    pairs = zip(ODD, limits, strict=True)
    longer = sum(len(target) + 1 > size for (_, target), size in pairs)
    truncated = {"sources": 1, "references": 1, "max_length": limit or MAX_LENGTH}
    assert card["protocol"]["truncated"] == truncated | {"longer_references": longer}
    assert 1 <= longer < len(ODD)
    expected = f"test: {longer} references are longer than outputs may be: raise"
    assert any(line.startswith(expected) for line in told)
    assert [line for line in told if "cut to" in line] == [
        f"test: 1 {side} cut to {limit or MAX_LENGTH} tokens"
        for side in ("sources", "references")
    ]
    with io.BytesIO((copier / "test.en").read_bytes()) as file:
        predicted = list(
            run.experiment.task.predict(*run.inputs(cli_inputs.read_lines(file)))
        )
    name = f"samples/{run.name('test')}.hypotheses.txt"
    saved = (copier / "run" / name).read_text().split("\n")[:-1]
    assert predicted == saved
    assert predicted[:3] == [""] * 3
    assert all(predicted[3:])
    bleu = sacrebleu.corpus_bleu(predicted, [[target for _, target in ODD]])
    assert card["scores"]["bleu"]["value"] == pytest.approx(bleu.score, abs=1e-9)
    assert bleu.score > 1


def test_batches_of_an_evaluation_are_bounded(copier):
    run = open_run(copier / "run", "last")
    run.experiment.cfg.data.buckets = 2
    dataset = train.prepare_dataset(run.experiment.cfg, run.directory)
    batches, _ = run.experiment.task.evaluation_inputs(run.experiment, dataset, "test")
    tokens = [size * max(widths) for size, *widths in batches.shapes]
    assert max(tokens) <= run.experiment.cfg.data.tokens_per_batch
    assert max(max(widths) for _, *widths in batches.shapes) == MAX_LENGTH
    ids = [i for k in range(len(batches)) for i in batches[k]["ids"] if i >= 0]
    assert sorted(ids) == list(range(len(ODD)))


@pytest.mark.parametrize("key", ["segment_length", "window"])
def test_segments_too_long_for_the_memory_are_refused_before_training(
    key, tmp_path, monkeypatch
):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("some text\n" * 1000)
    cfg = plain_text.get_config("transformer")
    cfg.model.update(layers=1, width=16, heads=2, feed_forward=16)
    cfg.data.update(source_dir=str(tmp_path), dir=str(tmp_path / "data"))
    cfg.data.update(tokenizer="byte", batch_size=4, segment_length=8)
    cfg.eval[key] = 2000
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**7)
    with pytest.raises(UserError, match=r"^\d x 2000 tokens at once need .* GB"):
        train.train(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()
