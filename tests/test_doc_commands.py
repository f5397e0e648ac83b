"""The commands of README.md and of two pages run as they are written there."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.entry_points import forked_python

ROOT = Path(__file__).parents[1]
SIZES = {
    "rnn": ("width", "embedding_width", "attention_width"),
    "transformer": ("width", "feed_forward"),
    "transformer_xl": ("width", "feed_forward"),
}
TRAINING = (
    "steps=2 every.log=1 every.eval=2 every.checkpoint=2 data.buckets=1 "
    "decode.max_length=4 model.dropout=0"  # smaller programs to compile
)
OWN_FILES = {  # of this test, in place of a corpus without files
    "cldr_fields": "data.name=labeled_text data.source_dir=reviews",
}
WRITTEN = {  # the file with the output of predict.py for two lines
    "README.md": "output.txt",
    "docs/quickstart.md": "new.de",
    "docs/understanding.md": "labels.txt",
    "docs/text_pairs.md": "outputs.txt",
}
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def commands(page: str) -> list[str]:
    """Command lines of a page's shell blocks that start a Python program."""
    text = (ROOT / page).read_text(encoding="utf8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.partition("  #")[0].strip() for line in lines]
    return [line for line in found if re.search(r"(^|\| )python ", line)]


def write_corpora(folder: Path) -> None:
    """Writes a few numbers in two languages, and a text."""
    (folder / "mine").mkdir()
    for split, size in {"train": 30, "valid": 4, "test": 4}.items():
        lines = [f"{WORDS[k % 10]} {WORDS[k % 7]}\n" for k in range(size)]
        (folder / f"mine/{split}.en").write_text("".join(lines))
        (folder / f"mine/{split}.de").write_text("".join(lines).upper())
        (folder / f"mine/{split}.txt").write_text(40 * "".join(lines))
    for name in ("new.en", "new.txt"):
        (folder / name).write_text("one two\nthree four\n")


def write_pairs(folder: Path) -> None:
    """Writes pairs of numbers as tables."""
    for split, size in {"train": 30, "valid": 4, "test": 4}.items():
        texts = [f"{WORDS[k % 10]} {WORDS[k % 7]}" for k in range(size)]
        rows = [f"{text}\t{text.upper()}\tsums\n" for text in texts]
        table = "".join(["source\ttarget\ttopic\n", *rows])
        (folder / f"mine/{split}.tsv").write_text(table)


def write_labels(folder: Path) -> None:
    """Writes labelled and tagged numbers, and documents of them."""
    for name in ("reviews", "tagged", "books"):
        (folder / name).mkdir()
    for split, size in {"train": 30, "valid": 4, "test": 4}.items():
        texts = [f"{WORDS[k % 10]} {WORDS[k % 7]}" for k in range(size)]
        rows = [f"{text}\t{k % 2}\t{k % 3}\n" for k, text in enumerate(texts)]
        table = "".join(["text\tlabel\tkind\n", *rows])
        (folder / f"reviews/{split}.tsv").write_text(table)
        tags = [text.replace(" ", "\tB-N\n") + "\tO\n\n" for text in texts]
        (folder / f"tagged/{split}.conll").write_text("".join(tags))
        lines = "".join(f"{text}\n" + "\n" * (k % 2) for k, text in enumerate(texts))
        (folder / f"books/{split}.txt").write_text(lines)


def tiny(command: str) -> str:
    """A training command with the smallest sizes, on the corpora of this test."""
    if found := re.search(
        r"(train|sweep)\.py .*--config=configs/(\w+/)?(\w+)\.py:([a-z_]+)", command
    ):
        program, folder, config, model = found.groups()
        model = model.removesuffix("_")  # of a size, such as transformer_1m
        keys = [
            *TRAINING.split(),
            "data.vocab_size=60",
            *(f"model.{key}=8" for key in SIZES[model]),
        ]
        keys += [] if model == "rnn" else ["model.layers=1", "model.heads=2"]
        if folder:
            keys += ["data.batch_size=4", "data.max_length=12", "data.dir=prepared"]
            keys += OWN_FILES.get(config, "").split()
        elif config == "plain_text":
            keys += ["data.segment_length=8", "data.batch_size=2"]
        else:
            keys.append("data.tokens_per_batch=64")
        if config == "cldr":
            keys += ["data.name=parallel_text/en-de", "data.source_dir=mine"]
            keys += ["data.dir=prepared"]
        command += "".join(f" --config.{key}" for key in keys)
        command += " --dry_run" if program == "sweep" else ""
    if "data.describe" in command:
        command += " --config.data.vocab_size=60 --config.data.dir=prepared"
    command = re.sub(r"python (\w+\.py)", rf"python {ROOT}/\1", command)
    command = command.replace("=configs/", f"={ROOT}/configs/")
    return re.sub(r"(^|\| )python ", rf"\1{forked_python()} ", command)


@pytest.mark.parametrize("page", WRITTEN)
def test_the_programs_configs_and_keys_of_a_page_exist(page):
    for command in commands(page):
        assert missing(command) == [], command
    assert missing("python trian.py --config=configs/cldr.py:rnn") == ["trian.py"]
    wrong = "--config=configs/cldr.py:rnn --config.data.sauce_dir=x"
    assert missing(f"python train.py {wrong}") == ["data.sauce_dir"]


def missing(command: str) -> list[str]:
    """Programs, and keys of the config, that a command names and that do not exist."""
    is_module, program = re.search(r"python (-m )?(\S+)", command).groups()
    if is_module:
        found = [] if importlib.util.find_spec(program) else [program]
    else:
        found = [] if (ROOT / program).exists() else [program]
    if named := re.search(r"--config=configs/(\S+)\.py:(\w+)", command):
        path, model = named.groups()
        module = importlib.import_module(f"configs.{path.replace('/', '.')}")
        keys = {key for key, _ in leaves(module.get_config(model).to_dict())}
        names = re.findall(r"--config\.([\w.]+)=", command)
        found += [name for name in names if name not in keys]
    return found


def leaves(document: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields the values of a nested dictionary with their dotted keys."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        # test_end_to_end.py, test_understanding_commands.py and
        # test_text_pair_commands.py run the programs on such runs, too.
        pytest.param("docs/quickstart.md", marks=pytest.mark.slow),
        pytest.param("docs/understanding.md", marks=pytest.mark.slow),
        pytest.param("docs/text_pairs.md", marks=pytest.mark.slow),
    ],
)
def test_the_commands_of_a_page_run(page, tmp_path):
    write_corpora(tmp_path)
    write_labels(tmp_path)
    write_pairs(tmp_path)
    found = commands(page)
    assert len(found) >= 5
    for command in found:
        if "runs/transformer" in command:  # README compares the run with another
            shutil.copytree(tmp_path / "runs/rnn", tmp_path / "runs/transformer")
        done = subprocess.run(
            ["sh", "-c", tiny(command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for path in tmp_path.glob("*.html"):
        assert path.stat().st_size > 1000
    assert len((tmp_path / WRITTEN[page]).read_text().splitlines()) == 2
