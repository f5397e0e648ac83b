"""Reproduces the runs of one corpus: trains, scores and compares them.

python -m benchmarks.reproduce multi30k --corpora=DIR
python -m benchmarks.reproduce multi30k --corpora=DIR --slot=600 --only=rnn --seeds=3
python -m benchmarks.reproduce multi30k --corpora=DIR -- --config.steps=2000

With --slot the current run is saved when the time is over and the exit code is 75: run
the same command to resume. Progress is printed every minute. Flags after `--` are
passed to train.py. Runs are in --runs/RUNG/NAME, or NAME-SEED for several seeds.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import cli
from utils.cli import exit_with
from utils.paths import DATA_PLACES, absolute_address

ROOT = Path(__file__).parents[1]
STOPPED = 75  # exit code: the same command resumes
MINUTE = 60.0
GRACE = 120.0  # seconds that a run may take to save
ARCHITECTURES = ("rnn", "transformer", "transformer_xl")


@dataclasses.dataclass(frozen=True)
class Rung:
    """Runs of one corpus under one protocol.

    Attributes:
      takes: device and time of a run.
      config: name of the config file.
      models: models of the config, which are the names of the runs.
      folder: folder of the corpus below --corpora; empty if it needs no files.
      training: flags of train.py of all runs.
      scoring: flags of eval.py.
      split: the split that is scored.
    """

    takes: str
    config: str
    models: tuple[str, ...] = ARCHITECTURES
    folder: str = ""
    training: tuple[str, ...] = ()
    scoring: tuple[str, ...] = ()
    split: str = "test"


# Preprocessing and search of the published Multi30k figures.
AS_PUBLISHED = ("--config.data.moses_tokenize", "--config.data.lowercase")
FRENCH = (*AS_PUBLISHED, "--config.data.name=multi30k/en-fr")
BEAM = ("--decode.method=beam",)
MULTI30K = {"folder": "multi30k", "scoring": (*BEAM, "--decode.beam_size=5")}
AWD_LSTMS = ("awd_lstm", "awd_lstm_attention")
SMALL_LMS = ("rnn", "rnn_attention", "transformer", "transformer_xl")
SMALL_CHAR_LMS = tuple(f"{model}_small" for model in ARCHITECTURES)
SHAKESPEARE = {"config": "characters/tinyshakespeare", "split": "validation"}
SIZES_41M = tuple(f"{model}_41m" for model in ARCHITECTURES)
SIZES_OF_ENCODERS = tuple(f"{m}_{n}m" for n in (1, 3, 10) for m in ARCHITECTURES)
DOCUMENTS = (*ARCHITECTURES, "transformer_xl_documents")
ALL_OF_ATIS = ("--config.data.name=atis/train_and_valid",)
LAST = ("--checkpoint=last",)
ALL_OF_SVAMP = ("--config.data.name=svamp/train_and_valid",)
PHRASES = (
    "--config.data.name=sst2/phrases",
    "--config.steps=5400",  # 4 epochs
    "--config.every.eval=540",
    "--config.every.checkpoint=540",
    "--config.optim.warmup=540",
    "--config.optim.lr=1e-3",
    "--config.optim.ema_decay=0.999",
)
ONE_CORE = "1 CPU core, hours"
CPU, CPU_HOUR = "2 CPU cores, minutes", "2 CPU cores, an hour"
CPU_HOURS = "2 CPU cores, hours"
MINUTES, HOUR, HOURS = "GPU, minutes; 2 CPU cores, hours", "GPU, an hour", "GPU, hours"

RUNGS = {
    "cldr": Rung("CPU, minutes", "cldr"),
    "python_stdlib": Rung("CPU, an hour", "python_stdlib"),
    "multi30k": Rung(MINUTES, "multi30k", training=AS_PUBLISHED, **MULTI30K),
    "multi30k_fr": Rung(MINUTES, "multi30k", training=FRENCH, **MULTI30K),
    "ptb": Rung(HOUR, "ptb", (*AWD_LSTMS, "transformer", "transformer_xl_24m"), "ptb"),
    "ptb_small": Rung(CPU_HOURS, "ptb", folder="ptb"),
    # Equal parameters and about equal time; published figures are of the last step.
    "ptb_zaremba": Rung(ONE_CORE, "ptb_zaremba", SMALL_LMS, "ptb", scoring=LAST),
    "ptb_zaremba_medium": Rung(
        "1 CPU core, days", "ptb_zaremba", ("rnn_medium",), "ptb", scoring=LAST
    ),
    "ptb_char": Rung(HOUR, "characters/ptb", folder="ptb"),
    "ptb_char_small": Rung(ONE_CORE, "characters/ptb", SMALL_CHAR_LMS, "ptb"),
    # It has no test split.
    "tinyshakespeare": Rung(CPU, folder="tinyshakespeare", **SHAKESPEARE),
    "tinyshakespeare_6layers": Rung(
        "1 CPU core, days",
        models=("transformer_6layers",),
        folder="tinyshakespeare",
        **SHAKESPEARE,
    ),
    "wikitext2": Rung(
        HOUR, "wikitext2", ("awd_lstm", "transformer", "transformer_xl"), "wikitext2"
    ),
    "novels": Rung(HOURS, "novels", folder="novels"),
    "novels_41m": Rung(HOURS, "novels", SIZES_41M, "novels"),
    "pydocs": Rung(HOUR, "pydocs", DOCUMENTS, "pydocs_fr", scoring=BEAM),
    "masked_wikitext2": Rung(
        CPU_HOURS, "pretraining/wikitext2", SIZES_OF_ENCODERS, "wikitext2"
    ),
    "trec": Rung(CPU, "classification/trec", folder="trec"),
    "sst2": Rung(CPU, "classification/sst2", folder="sst2"),
    "sst2_phrases": Rung(
        CPU_HOUR,
        "classification/sst2",
        folder="sst2",
        training=PHRASES,
        split="validation",  # as for the published figures
    ),
    "chnsenticorp": Rung(
        CPU_HOUR, "classification/chnsenticorp", folder="chnsenticorp_zh"
    ),
    "sick": Rung(CPU, "classification/sick", folder="sick"),
    "ocnli": Rung(
        CPU_HOUR, "classification/ocnli", folder="ocnli_zh", split="validation"
    ),
    # Trained on the validation split too, so that no checkpoint can be selected.
    "atis": Rung(
        CPU, "tagging/atis", folder="atis", training=ALL_OF_ATIS, scoring=LAST
    ),
    "resume_zh": Rung(CPU, "tagging/resume_zh", folder="resume_zh"),
    "conll2003_en": Rung(CPU_HOUR, "tagging/conll2003_en", folder="conll2003_en"),
    "semeval2010_task8": Rung(
        CPU, "relations/semeval2010_task8", folder="semeval2010_task8"
    ),
    "finre_zh": Rung(CPU_HOUR, "relations/finre_zh", folder="finre_zh"),
    "aeslc": Rung(CPU_HOURS, "pairs/aeslc", folder="aeslc", scoring=BEAM),
    "dstc2": Rung(CPU_HOURS, "pairs/dstc2", folder="dstc2"),
    # Trained on the validation split too, as for the published figures.
    "svamp": Rung(
        CPU_HOUR,
        "pairs/svamp",
        folder="math_en/svamp",
        training=ALL_OF_SVAMP,
        scoring=LAST,
    ),
    **{
        f"mawps_{fold}": Rung(
            CPU_HOUR,
            "pairs/mawps",
            folder="math_en/mawps",
            training=(f"--config.data.name=mawps/fold{fold}_train_and_valid",),
            scoring=LAST,
        )
        for fold in range(5)
    },
    "hmwp": Rung(CPU_HOURS, "pairs/hmwp", folder="hmwp_zh"),
}


def main() -> int:
    """Returns 0 when the rung is complete, 75 when the time was over before."""
    options, flags = parse(sys.argv[1:])
    rung = RUNGS[options.rung]
    end = time.monotonic() + options.slot
    paths = []
    for seed in range(options.seeds):
        for name in options.only or rung.models:
            path = options.runs.absolute() / options.rung / name
            if options.seeds > 1:
                path = path.with_name(f"{name}-{seed}")
            paths.append(path)
            training = (*training_flags(rung, name, seed, options), *flags)
            scoring = (*rung.scoring, *data_flags(training))
            if code := run_entry(path, training, scoring, rung.split, end):
                return code
    report = options.runs.absolute() / options.rung / "report"
    outputs = ",".join(f"{report}.{kind}" for kind in ("html", "md", "json"))
    runs = ",".join(map(str, paths))
    return run("report.py", f"--runs={runs}", f"--output={outputs}")


def run_entry(
    path: Path, flags: Sequence[str], scoring: Sequence[str], split: str, end: float
) -> int:
    """Trains and scores one run, unless done; returns an exit code."""
    if not (path / "trained").exists():
        if time.monotonic() >= end:
            return STOPPED
        if code := train(path, flags, end):
            return code
        (path / "trained").touch()
    if list(path.glob(f"eval/{split}-*.json")):
        return 0
    return run("eval.py", f"--workdir={path}", f"--split={split}", *scoring)


def train(path: Path, flags: Sequence[str], end: float) -> int:
    """Trains until the run is done or the time is over; returns its exit code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "train.py", f"--workdir={path}", *flags],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None and (left := end - time.monotonic()) > 0:
                wait(process, min(MINUTE, max(left, 0.1)))
                print(f"{path}: {newest_line(path / 'metrics.jsonl')}", flush=True)
        finally:  # also when this process is interrupted
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                wait(process, GRACE)
    if process.poll() is None:
        process.kill()
    code = process.wait()
    if code not in (0, STOPPED):
        print(f"{path}: train.py ended with {code}; see {path.with_suffix('.log')}")
    return code


def wait(process: subprocess.Popen, seconds: float) -> None:
    """Waits for a process, at most `seconds`."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def newest_line(metrics: Path) -> str:
    """Returns the last logged metrics as one line."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    if not lines:
        return "nothing logged yet"
    logged = json.loads(lines[-1])
    names = ("step", "split", "loss", "bleu", "accuracy", "f1")
    names += ("rougeL", "exact_match", "answer_accuracy", "masked_accuracy")
    names += tuple(name for name in logged if name.endswith("s_per_second"))
    return " ".join(
        f"{name} {logged[name]:.4g}"
        if isinstance(logged[name], float)
        else f"{name} {logged[name]}"
        for name in names
        if name in logged
    )


def training_flags(
    rung: Rung, name: str, seed: int, options: argparse.Namespace
) -> Iterator[str]:
    """Yields the flags of train.py for a run."""
    yield f"--config=configs/{rung.config}.py:{name}"
    yield f"--config.seed={seed}"
    yield from rung.training
    if rung.folder:
        source = options.corpora.absolute() / rung.folder
        yield f"--config.data.source_dir={source}"
    if options.data:
        yield f"--config.data.dir={absolute_address(options.data)}"


def data_flags(training: Sequence[str]) -> list[str]:
    """Returns the flags of eval.py for the folders of the data that train.py reads."""
    names = tuple(f"--config.data.{key}=" for key in DATA_PLACES)
    return [
        flag.replace("config.", "", 1) for flag in training if flag.startswith(names)
    ]


def run(program: str, *flags: str) -> int:
    """Runs an entry point and returns its exit code."""
    command = [sys.executable, program, *flags]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns our options, and train.py's, which follow `--`."""
    rungs = [
        f"{name:23} {rung.takes}: {', '.join(rung.models)}"
        for name, rung in RUNGS.items()
    ]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(["rungs:", *rungs]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("rung", choices=RUNGS, metavar="RUNG")
    add("--corpora", type=Path, help="folder with a folder a corpus")
    add("--data", help="cfg.data.dir: where corpora are prepared")
    add("--runs", type=Path, default=Path("runs/ladder"), help="where runs lie")
    add("--slot", type=float, default=math.inf, help="seconds; else until it is done")
    add("--only", default=None, help="runs, such as rnn,transformer")
    add("--seeds", type=cli.positive, default=1, help="runs of each")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    rung = RUNGS[options.rung]
    if options.only:
        options.only = options.only.split(",")
        if not {*options.only} <= {*rung.models}:
            parser.error(f"--only: there are {', '.join(rung.models)}")
    if rung.folder and not options.corpora:
        parser.error("--corpora=DIR is missing: the folder with the corpus's folder")
    return options, arguments[split + 1 :]


if __name__ == "__main__":
    for kind in (signal.SIGTERM, signal.SIGINT):  # the run in hand saves itself first
        signal.signal(kind, lambda *_: sys.exit(STOPPED))
    exit_with(main)
