"""Keeps runs in docs/results/ and generates the tables of the results pages from them.

python -m analysis.publish_results --keep=runs/rnn,runs/lm --into=docs/results/ptb
python -m analysis.publish_results           writes the tables of PAGES
python -m analysis.publish_results --check   exit code 2 if they would change

A kept run is a run directory for `report.py` without checkpoints, without text of the
corpus, and without paths of the machine it ran on. Its predictions are kept, from which
`analysis.check_results` recomputes its scores. In a page a table stands between
`<!-- results/NAME -->` and `<!-- end -->`; that of `results/published.toml` holds the
runs against published figures. Of runs that differ in their seed, the
learning curve of the first stands for all.
"""

import json
import re
import shutil
from pathlib import Path

from absl import flags

from analysis.published_figures import published_rows
from analysis.report.content import Content
from analysis.report.renderers import markdown_table
from analysis.report.tables import curve_rows, seed_rows
from training.run_dir import MACHINE_SPECIFIC_KEYS, RunDirectory
from utils import cli, cli_inputs, strict_json
from utils.errors import UserError

PAGES = ["docs/results.md", "docs/results_understanding.md"]
KEEP = flags.DEFINE(cli_inputs.PlacesParser(), "keep", [], "Run directories to keep.")
INTO = flags.DEFINE_string("into", None, "Their folder: docs/results/NAME.")
PAGES_FLAG = flags.DEFINE_list("pages", PAGES, "The texts with the tables.")
CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit code 2 for a change.")

KEPT_FILES = (
    *("about.json", "metrics.jsonl", "eval/*.json", "eval/*.npz"),
    "samples/*.hypotheses.txt",
)
MARKED_TABLES = re.compile(
    r"(<!-- (results/[\w./-]+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def main() -> None:
    """Keeps runs, or generates the tables."""
    if bool(KEEP.value) != bool(INTO.value):
        raise UserError("--keep=DIR1,DIR2 and --into=docs/results/NAME need each other")
    names = [Path(path).resolve().name for path in KEEP.value]
    if len(set(names)) < len(names):
        raise UserError(
            f"--keep={','.join(KEEP.value)}: several of these directories have the "
            "same name, under which a run is kept"
        )
    for path in KEEP.value:
        print(keep(path, Path(INTO.value)))
    if KEEP.value:
        return
    for page in map(Path, PAGES_FLAG.value):
        if not page.is_file():
            raise UserError(f"--pages={page} does not exist")
        old = page.read_text(encoding="utf8")
        new = update_tables(old, page.parent)
        if old == new:
            print(f"{page} is up to date")
        elif CHECK.value:
            raise UserError(f"{page} is out of date: run analysis.publish_results")
        else:
            page.write_text(new, encoding="utf8")
            print(page)


def keep(path: str, folder: Path) -> Path:
    """Copies the files of a run that its tables need; returns the copy's path.

    Raises UserError for a path that is no run directory with a score card, and for a
    run that is the kept copy itself.
    """
    run = RunDirectory(path)
    if not run.exists or not list(run.path.glob("eval/*.json")):
        raise UserError(f"{path} is not a run directory with a score card")
    kept = folder / run.path.resolve().name
    if kept.resolve() == run.path.resolve():
        raise UserError(f"{path} is the kept copy itself: name the original run")
    names = (*KEPT_FILES, "samples/*.intents.txt", "config.json")
    for file in filter(Path.is_file, kept.rglob("*")):
        if not any(map(file.relative_to(kept).match, names)):
            raise UserError(f"{file} is of no kept run: choose another --into")
    draft = kept.with_name(f".{kept.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    for pattern in KEPT_FILES:
        for file in run.path.glob(pattern):
            copy = draft / file.relative_to(run.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    for file in run.path.glob("samples/*.jsonl"):
        keep_intents(file, draft / "samples" / f"{file.stem}.intents.txt")
    config = run.read_config()
    for key in (*MACHINE_SPECIFIC_KEYS, "data.vocabulary"):
        section, _, name = key.partition(".")
        if section == "data":
            config["data"][name] = None
    config["init_from"] = None
    (draft / "config.json").write_text(strict_json.dumps(config, indent=1) + "\n")
    shutil.rmtree(kept, ignore_errors=True)
    draft.rename(kept)
    return kept


def keep_intents(samples: Path, copy: Path) -> None:
    """Writes the predicted intents of the samples of tagged sentences, one a line."""
    with samples.open(encoding="utf8") as rows:
        intents = [json.loads(row).get("hypothesis_intent") for row in rows]
    if intents and None not in intents:
        copy.write_text("".join(f"{name}\n" for name in intents), encoding="utf8")


def update_tables(text: str, root: Path) -> str:
    """Regenerates the tables of a text. Raises UserError where it marks none."""
    if not MARKED_TABLES.search(text):
        raise UserError("No <!-- results/NAME --> followed by <!-- end --> in the text")

    def render(match: re.Match) -> str:
        path = root / match[2]
        if path.suffix == ".toml":
            tables = markdown_table(published_rows(path))
        else:
            tables = result_tables(path)
        return f"{match[1]}\n{tables}\n\n{match[3]}"

    return MARKED_TABLES.sub(render, text)


def result_tables(folder: Path) -> str:
    """Renders scores, costs, origins and curves of the runs kept in a folder."""
    paths = sorted(str(path) for path in folder.glob("[!.]*") if path.is_dir())
    if not paths:
        raise UserError(f"{folder} contains no runs")
    content = Content.from_paths(paths, is_tested=False)
    origins = content.origins
    for origin in origins:
        del origin["directory"]
    tables = content.scores, content.costs
    parts = [
        *(f"**Warning:** {text}." for text in content.warnings()),
        *(markdown_table([row.named_cells for row in rows]) for rows in tables),
        markdown_table(seed_rows(content.systems) if content.has_seeds else []),
        markdown_table(origins),
        markdown_table(
            [row for system in content.systems for row in curve_rows(system.runs[0])]
        ),
    ]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    cli.run_main(main)
