"""The entry points as a user runs them: processes, files, exit codes."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from data.corpus import open_corpus
from helpers.entry_points import ROOT, assert_refused, forked_python, run, start
from helpers.small_runs import small_corpora

SMALL = (
    "--config.model.width=16",
    "--config.model.embedding_width=16",
    "--config.model.attention_width=8",
    "--config.data.buckets=1",
    "--config.data.max_length=16",
    "--config.data.tokens_per_batch=256",
    "--config.data.vocab_size=400",
    "--config.steps=60",
    "--config.every.log=1",
    "--config.every.eval=60",
    "--config.every.checkpoint=20",
    "--config.decode.max_length=6",
)


@pytest.fixture(scope="module")
def data_dir(small_data_dir):
    """With a part of the dates, since all of them take longer than the rest here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_corpora(monkeypatch)
        open_corpus("cldr/en-de", small_data_dir)
    return small_data_dir


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run that was stopped by SIGTERM and went on."""
    workdir = tmp_path_factory.mktemp("runs") / "rnn"
    flags = (
        "--config=configs/cldr.py:rnn",
        f"--workdir={workdir}",
        f"--config.data.dir={data_dir}",
        *SMALL,
    )
    process = subprocess.Popen(
        [*forked_python().split(), "train.py", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.send_signal(signal.SIGTERM)
            break
    rest, told = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert "step 60/60" not in rest
    done = run("train.py", *flags)
    assert done.returncode == 0, done.stderr.decode()
    assert b"resuming at step" in done.stdout
    assert b"warning" not in done.stderr.lower()  # of the libraries that restore
    return workdir, flags


def test_a_stopped_run_resumes_and_logs_each_step_once(trained):
    workdir, _ = trained
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    steps = [row["step"] for row in rows if row["split"] == "train"]
    assert steps == list(range(1, 61))
    assert all(0 < row["mfu"] < 2 for row in rows if row["split"] == "train")
    [validation] = [row for row in rows if row["split"] == "validation"]
    assert {"bleu", "exact_match", "loss"} <= validation.keys()


def test_a_run_directory_says_what_it_is(trained):
    workdir, _ = trained
    about = json.loads((workdir / "about.json").read_text())
    assert about["parameters"] > 1000
    assert {"versions", "devices", "threads", "xla_flags", "hashes"} <= about.keys()
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["width"] == 16
    assert (workdir / "tokenizer" / "source.json").exists()
    assert list((workdir / "tensorboard").glob("events*"))


def test_a_finished_run_has_nothing_left_to_do(trained):
    workdir, flags = trained
    before = (workdir / "metrics.jsonl").read_bytes()
    done = run("train.py", *flags)
    assert done.returncode == 0, done.stderr.decode()
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_eval_predict_and_report_use_the_run(trained, tmp_path):
    workdir, _ = trained
    done = run("eval.py", f"--workdir={workdir}", "--split=test", "--checkpoint=last")
    assert done.returncode == 0, done.stderr.decode()
    assert b"nearest_neighbour" in done.stdout
    assert b"warning" not in done.stderr.lower()
    card = json.loads((workdir / "eval" / "test-60.json").read_text())
    assert (card["split"], card["step"]) == ("test", 60)
    bleu = card["scores"]["bleu"]
    assert bleu["low"] <= bleu["value"] <= bleu["high"]
    assert card["baselines"].keys() == {"unigram", "copy", "nearest_neighbour"}
    assert "version" in card["protocol"]["bleu_signature"]

    for name in ("bleu", "chrf"):
        assert sacrebleu_alone(workdir, name) == pytest.approx(
            card["scores"][name]["value"], abs=1e-4
        )
    saved = np.load(workdir / "eval" / "test-60.npz")
    assert len(saved["total"]) == card["protocol"]["sentences"]
    mean = saved["total"].sum(dtype=float) / saved["weight"].sum()
    assert mean == pytest.approx(card["scores"]["loss"]["value"], rel=1e-5)

    given = b"March 5, 2024\n\n3 hours ago\n"
    done = run("predict.py", f"--workdir={workdir}", given=given)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""

    page = tmp_path / "report.html"
    done = run("report.py", f"--runs={workdir}", f"--output={page}")
    assert done.returncode == 0, done.stderr.decode()
    assert page.read_text(encoding="utf8").startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_a_follower_scores_each_checkpoint_of_a_run_that_has_ended(trained):
    workdir, _ = trained
    done = run("eval.py", f"--workdir={workdir}", "--split=validation", "--follow")
    assert done.returncode == 0, done.stderr.decode()
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    cards = [workdir / "eval" / f"validation-{step}.json" for step in kept]
    assert [json.loads(card.read_text())["step"] for card in cards] == kept
    assert all(str(card) in done.stdout.decode() for card in cards)


def predicted(workdir, *flags, given=b"March 5, 2024\n\n3 hours ago\n"):
    done = run("predict.py", f"--workdir={workdir}", *flags, given=given)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split("\n")[:-1]


def test_predict_gives_many_scores_prefixes_and_ensembles(trained):
    workdir, _ = trained
    plain = predicted(workdir)
    assert len(plain) == 3
    assert predicted(f"{workdir},{workdir}", "--documents") == plain
    beam = ("--decode.method=beam", "--decode.beam_size=2", "--n_best=2")
    scored = predicted(workdir, *beam, "--scores", "--decode.length_penalty=0")
    assert len(scored) == 6
    assert scored[2:4] == ["", ""]
    pairs = [line.split("\t") for line in scored if line]
    assert [float(score) for score, _ in pairs[:2]] == sorted(
        [float(score) for score, _ in pairs[:2]], reverse=True
    )
    assert predicted(workdir, *beam, "--decode.length_penalty=0") == [
        line.split("\t")[-1] for line in scored
    ]
    given = "".join(f"3 hours ago\t{text}\n" for _, text in pairs[2:])
    for line in predicted(workdir, "--score", given=given.encode()):
        log_prob, tokens = line.split("\t")
        assert float(log_prob) < 0 < int(tokens)
    [line] = predicted(workdir, "--prefix", given=b"3 hours ago\tvor\n")
    assert line.startswith("vor")


SEARCHES = {
    "diverse beam": {"method": "beam", "beam_groups": 2, "diversity_penalty": 0.5},
    "mbr": {"method": "mbr", "mbr_samples": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_a_validation_on_a_mesh_has_the_scores_of_eval_on_one_device(
    data_dir, tmp_path, search
):
    rules = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3}
    decode = SEARCHES[search] | rules
    done = start(
        "train.py",
        "--config=configs/cldr.py:rnn",
        f"--workdir={tmp_path}",
        f"--config.data.dir={data_dir}",
        *SMALL,
        *(f"--config.{key}=20" for key in ("steps", "every.eval")),
        "--config.parallel.fsdp=2",
        *(f"--config.decode.{key}={value}" for key, value in decode.items()),
        JAX_NUM_CPU_DEVICES="2",
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    [on_mesh] = [r for r in map(json.loads, lines) if r["split"] == "validation"]
    flags = (f"--workdir={tmp_path}", "--split=validation", "--checkpoint=last")
    done = run("eval.py", *flags)
    assert done.returncode == 0, done.stderr.decode()
    card = json.loads((tmp_path / "eval" / "validation-20.json").read_text())
    assert decode.items() <= card["protocol"]["decode"].items()
    scores = {name: score["value"] for name, score in card["scores"].items()}
    assert scores["chrf"] > 1
    assert on_mesh["loss"] == pytest.approx(scores["loss"], rel=1e-5)
    for name in ("bleu", "chrf", "exact_match"):
        assert on_mesh[name] == scores[name]


def test_what_predict_cannot_do_is_refused_before_it_reads(trained, tmp_path):
    workdir, _ = trained
    wide = ("--decode.method=beam", "--decode.beam_size=5000")
    done = run("predict.py", f"--workdir={workdir}", *wide)
    assert_refused(done, "decode.beam_size=5000", "vocabulary")
    done = run("predict.py", f"--workdir={workdir}", "--n_best=2")
    assert_refused(done, "n_best=2", "greedy")
    done = run("predict.py", f"--workdir={workdir}", "--score", "--scores")
    assert_refused(done, "--score")
    other = shutil.copytree(workdir, tmp_path / "lr=1e-3,seed=2")
    vocabulary = other / "tokenizer" / "target.json"
    vocabulary.write_text('{"kind": "byte"}')
    done = run("predict.py", f"--workdir={workdir},{other}")
    assert_refused(done, f"{other}: its checkpoint does not belong to the model")


def sacrebleu_alone(workdir, metric):
    """What its command line makes of the saved hypotheses."""
    samples = workdir / "samples"
    sides = [samples / f"test-60.{name}.txt" for name in ("references", "hypotheses")]
    flags = [str(sides[0]), "-i", str(sides[1]), "-m", metric, "-w", "6", "-b"]
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *flags], capture_output=True, check=True
    )
    return float(done.stdout)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.model.dropuot=0.2", ["dropuot", "dropout"]),
        ("--config.model.heads=2", ["heads: there is no such key"]),
        ("--config.nonsense=3", ["nonsense: there is no such key"]),
        ("--config.steps=many", ["steps", "many"]),
        ("--config.steps=0", ["steps=0"]),
        ("--config.data.name=cldr/en-xx", ["cldr", "en-xx"]),
        ("--config.data.name=cldrr", ["cldrr", "cldr"]),
        ("--config.task=translatoin", ["translatoin", "translation"]),
        ("--config.optim.name=adamm", ["adamm", "adamw"]),
        ("--config.model.name=lstm", ["lstm", "transformer_xl"]),
        ("--nonsense=3", ["nonsense"]),
    ],
)
def test_a_mistake_in_the_config_is_one_line_and_exit_code_2(
    data_dir, tmp_path, flag, words
):
    workdir = tmp_path / "run"
    done = run(
        "train.py",
        "--config=configs/cldr.py:rnn",
        f"--workdir={workdir}",
        f"--config.data.dir={data_dir}",
        *SMALL,
        flag,
    )
    assert_refused(done, *words)
    assert not workdir.exists()


def test_a_beam_wider_than_the_vocabulary_is_refused_before_training(
    data_dir, tmp_path
):
    done = run(
        "train.py",
        "--config=configs/cldr.py:rnn",
        f"--workdir={tmp_path}/run",
        f"--config.data.dir={data_dir}",
        *SMALL,
        "--config.decode.method=beam",
        "--config.decode.beam_size=401",
    )
    assert_refused(done, "decode.beam_size=401", "400 tokens")
    assert not (tmp_path / "run").exists()


def test_a_config_file_or_model_that_does_not_exist_is_refused(tmp_path):
    workdir = f"--workdir={tmp_path}/run"
    assert_refused(run("train.py", "--config=configs/cldrr.py", workdir), "cldrr")
    done = run("train.py", "--config=configs/cldr.py:lstm", workdir)
    assert_refused(done, "lstm", "transformer_xl")
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"x = '\xe9'\n")
    assert_refused(run("train.py", f"--config={latin}", workdir), "utf-8", "latin.py")
    assert_refused(run("train.py", workdir), "--config")
    assert_refused(run("train.py", "--config=configs/cldr.py:rnn"), "workdir")


def test_a_run_of_another_config_is_not_touched(trained):
    workdir, flags = trained
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    done = run("train.py", *flags, "--config.optim.lr=0.5")
    assert_refused(done, "optim.lr", "0.5", "--workdir")
    after = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize("script", ["eval.py", "predict.py"])
def test_a_misspelt_key_of_decode_is_one_line(script):
    done = run(script, "--workdir=x", "--decode.max_lenght=3", given=b"")
    assert_refused(done, "max_lenght", "max_length")


def test_a_language_model_goes_through_all_entry_points(tmp_path):
    workdir, texts, prepared = (tmp_path / name for name in ("run", "texts", "data"))
    texts.mkdir()
    for split in ("train", "valid", "test"):
        part = (ROOT / "utils/cli.py").read_text()[:1500]
        (texts / f"{split}.txt").write_text(part)
    done = run(
        "train.py",
        "--config=configs/python_stdlib.py:rnn",
        f"--workdir={workdir}",
        f"--config.data.dir={prepared}",
        "--config.data.name=plain_text",
        f"--config.data.source_dir={texts}",
        "--config.model.width=16",
        "--config.model.embedding_width=16",
        "--config.model.attention_width=8",
        "--config.steps=4",
        "--config.data.batch_size=2",
        "--config.data.segment_length=16",
        "--config.eval.batch_size=2",
        "--config.eval.segment_length=16",
        "--config.decode.max_length=5",
    )
    assert done.returncode == 0, done.stderr.decode()
    for folder in (texts, prepared):
        folder.rename(tmp_path / f"moved-{folder.name}")
    flags = (f"--workdir={workdir}", "--eval.attention_window=3")
    done = run("eval.py", *flags)
    assert_refused(done, "is no folder", " --data.source_dir", " --data.dir")
    moved = f"--data.dir={tmp_path / 'moved-data'}"
    done = run("eval.py", *flags, moved)
    assert done.returncode == 0, done.stderr.decode()
    card = json.loads((workdir / "eval" / "test-4.json").read_text())
    assert card["protocol"]["attention_window"] == 3
    assert card["protocol"]["tokens"] == card["protocol"]["bytes"]
    assert {"perplexity", "bits_per_byte"} <= card["scores"].keys()
    loss = card["scores"]["loss"]
    assert loss["low"] < loss["value"] < loss["high"]
    done = run("eval.py", f"--workdir={workdir}", "--eval.window=8", moved)
    assert_refused(done, "eval.window=8", "needs a model without a carry")
    done = run("predict.py", f"--workdir={workdir}", given=b"def f(x):\n\nimport")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().count("\n") == 3
    done = run("predict.py", f"--workdir={workdir}", "--score", given=b"def f(x):\n\n")
    assert done.stdout.decode().splitlines()[1:] == [""], done.stderr.decode()
    assert done.stdout.split()[1] == b"10"  # bytes, and the end
    page = tmp_path / "report.html"
    done = run("report.py", f"--runs={workdir}", f"--output={page}")
    assert done.returncode == 0, done.stderr.decode()
    assert b"bits/byte" in done.stdout


def test_a_run_is_not_scored_on_other_data(trained, tmp_path):
    workdir, _ = trained
    other = tmp_path / "run"
    shutil.copytree(workdir, other)
    about = json.loads((other / "about.json").read_text())
    about["hashes"]["data"] = "0123456789abcdef"
    (other / "about.json").write_text(json.dumps(about))
    done = run("eval.py", f"--workdir={other}")
    assert_refused(done, "other data", "0123456789abcdef")


def test_a_run_of_an_older_format_is_refused_in_one_line(trained, tmp_path):
    workdir, _ = trained
    other = shutil.copytree(workdir, tmp_path / "run")
    about = json.loads((other / "about.json").read_text())
    del about["format"]
    (other / "about.json").write_text(json.dumps(about))
    said = "older version", "(format 1)", "reads format 2"
    assert_refused(run("eval.py", f"--workdir={other}"), *said)
    assert_refused(run("predict.py", f"--workdir={other}", given=b""), *said)
    assert_refused(run("report.py", f"--runs={other}"), *said)


def test_what_is_not_there_is_named(trained, tmp_path):
    workdir, _ = trained
    nowhere = f"--workdir={tmp_path}/nowhere"
    assert_refused(run("eval.py", nowhere), "nowhere", "no run")
    assert_refused(run("predict.py", nowhere, given=b"x\n"), "no run")
    done = run("eval.py", f"--workdir={workdir}", "--split=tset")
    assert_refused(done, "tset", "train, validation, test")
    done = run("eval.py", f"--workdir={workdir}", "--checkpoint=7")
    assert_refused(done, "'7'", "60")
    done = run("predict.py", f"--workdir={workdir}", given=b"caf\xe9\n")
    assert_refused(done, "line 1", "UTF-8")


def test_a_corpus_out_of_reach_names_both_remedies_at_once(tmp_path):
    done = start(
        "train.py",
        "--config=configs/ptb.py:rnn",
        f"--workdir={tmp_path}/run",
        f"--config.data.dir={tmp_path}/data",
        http_proxy="",
        https_proxy="http://127.0.0.1:9",
    )
    assert_refused(done, "--config.data.source_dir", "https://", "ptb.train.txt")
