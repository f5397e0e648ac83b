"""Tests of the commands for effective context and attention of a run."""

import json
import re

import pytest

from helpers.entry_points import assert_refused, run

SHORT = (
    "--config=configs/plain_text.py:transformer_xl",
    "--config.data.tokenizer=byte",
    "--config.data.segment_length=8",
    "--config.data.batch_size=4",
    "--config.model.layers=1",
    "--config.model.width=8",
    "--config.model.heads=2",
    "--config.model.feed_forward=8",
    "--config.model.memory_length=8",
    "--config.eval.segment_length=8",
    "--config.steps=2",
    "--config.every.eval=2",
    "--config.every.checkpoint=2",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection")
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("to be or not to be\n" * 20)
    done = run(
        "train.py",
        *SHORT,
        f"--config.data.source_dir={folder}",
        f"--config.data.dir={folder / 'data'}",
        f"--workdir={folder / 'run'}",
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder / "run"


def test_the_effective_context_of_a_run_is_printed_written_and_plotted(
    workdir, tmp_path
):
    flags = (f"--runs={workdir}", "--rows=16", f"--output={tmp_path}")
    sizes = ("--lengths=4,8,12", "--places=20", f"--data.dir={tmp_path / 'other'}")
    done = run("analysis/effective_context/__main__.py", *flags, *sizes)
    assert done.returncode == 0, done.stderr.decode()
    assert "r=0.1" in done.stdout.decode()
    found = json.loads((tmp_path / "effective-context.json").read_text())
    assert (found["lengths"], found["places"]) == ([4, 8, 12], 20)
    result = found["runs"][str(workdir)]
    assert len(result["loss"]) == 3
    assert result["recl"]["1.0"]["length"] in (4, 8, 12)
    assert (tmp_path / "effective-context.png").exists()
    assert (tmp_path / "other" / "plain_text").exists()

    done = run("analysis/effective_context/__main__.py", *flags, "--lengths=1000,2000")
    assert_refused(done, "2000", "validation", "380 tokens")
    done = run("analysis/effective_context/__main__.py", *flags, "--places=0")
    assert_refused(done, "--places=0")


def test_the_attention_of_a_run_becomes_a_page_and_pictures(workdir, tmp_path):
    flags = (f"--workdir={workdir}", f"--output={tmp_path / 'pages'}")
    done = run("analysis/attention/__main__.py", *flags, given=b"to be\n\nor not\n")
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "pages" / "attention.json").read_text())
    assert [text["title"] for text in found["texts"]] == ["to be", "or not"]
    (layer_map,) = found["texts"][1]["maps"]
    assert layer_map["columns"][:7] == ["<eos>", *"to", "␣", *"be", "<eos>"]
    page = (tmp_path / "pages" / "attention.html").read_text("utf8")
    assert page.startswith("<!DOCTYPE html>")
    assert len(list((tmp_path / "pages").rglob("*.png"))) == 4

    done = run("analysis/attention/__main__.py", *flags)
    assert_refused(done, "has no text")
    done = run("analysis/attention/__main__.py", *flags, "--text=nowhere.txt")
    assert_refused(done, "nowhere.txt")
    done = run("analysis/attention/__main__.py", *flags, f"--text={tmp_path}")
    assert_refused(done, f"--text={tmp_path}", "Is a directory")
    done = run("analysis/attention/__main__.py", *flags, given=b"\xff\n")
    assert_refused(done, "not UTF-8")


def test_the_scores_of_tokens_sum_to_the_loss_of_eval(workdir, tmp_path):
    text, page = workdir.parent / "test.txt", tmp_path / "page.html"
    flags = f"--workdir={workdir}", f"--text={text}", f"--output={page}"
    done = run("analysis/token_scores/__main__.py", *flags, "--eval.memory_length=4")
    assert done.returncode == 0, done.stderr.decode()
    keys = "--eval.memory_length=4", "--eval.batch_size=1", "--split=test"
    scored = run("eval.py", flags[0], *keys)
    assert scored.returncode == 0, scored.stderr.decode()
    card = json.loads((workdir / "eval" / "test-2.json").read_text())
    scores = {name: score["value"] for name, score in card["scores"].items()}
    [document] = re.findall('id="content">(.*)</script>', page.read_text("utf8"))
    totals = json.loads(document)["runs"][0]["totals"]
    assert totals["tokens"] == card["protocol"]["tokens"] == 380
    for name in ("loss", "perplexity", "bits_per_character"):
        assert totals[name] == pytest.approx(scores[name], rel=1e-5)
