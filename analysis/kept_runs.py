"""Runs of which figures stay, without checkpoints, corpora or folders' names."""

import json
import re
import shutil
from pathlib import Path

from analysis.report.content import Content
from analysis.report.markdown import section, table
from analysis.report.tables import curve_rows, seed_rows
from training.run_dir import MACHINE_SPECIFIC_KEYS, RunDirectory
from utils.errors import UserError

KEPT = ("about.json", "metrics.jsonl", "eval/*.json", "eval/*.npz")
HYPOTHESES = "samples/*.hypotheses.txt"
FOLDERS = (
    *(key for key in MACHINE_SPECIFIC_KEYS if key.startswith("data.")),
    "data.vocabulary",
)
MARKED = re.compile(r"(<!-- (results/[\w./-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def keep(path: str, folder: Path) -> Path:
    """Copies what figures need of a run; returns where to.

    What was kept of a run of that name before goes when all of this one is there.

    Raises UserError for what is no run directory with a score card, and for a run
    that is kept already where it would go to.
    """
    run = RunDirectory(path)
    if not run.exists or not list(run.path.glob("eval/*.json")):
        raise UserError(f"{path} is not a run directory with a score card")
    kept = folder / run.path.resolve().name
    if kept.resolve() == run.path.resolve():
        raise UserError(f"{path} is kept there already: name the run it was made of")
    draft = kept.with_name(f".{kept.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    files = [file for pattern in (*KEPT, HYPOTHESES) for file in run.path.glob(pattern)]
    for file in files:
        copy = draft / file.relative_to(run.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    config = run.read_config()
    for key in FOLDERS:
        config["data"][key.removeprefix("data.")] = None
    config["init_from"] = None
    (draft / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.rmtree(kept, ignore_errors=True)
    draft.rename(kept)
    return kept


def with_tables(text: str, root: Path) -> str:
    """A text with its tables made anew. Raises UserError where there are none."""
    if not MARKED.search(text):
        raise UserError("there is no <!-- results/NAME --> with an <!-- end --> after")
    return MARKED.sub(
        lambda found: f"{found[1]}\n{tables(root / found[2])}\n\n{found[3]}", text
    )


def tables(folder: Path) -> str:
    """Scores, costs, origins and curves of the runs kept in a folder."""
    paths = sorted(str(path) for path in folder.glob("[!.]*") if path.is_dir())
    if not paths:
        raise UserError(f"{folder} holds no runs")
    content = Content.of(paths, is_tested=False)
    parts = [
        *(f"**Warning:** {text}." for text in content.warnings()),
        table([{"model": row.label, **row.cells} for row in content.scores]),
        table([{"model": row.label, **row.cells} for row in content.costs]),
        section("Seeds", seed_rows(content.systems) if content.has_seeds else []),
        table([without_place(row) for row in content.origins]),
        table([row for run in content.runs for row in curve_rows(run)]),
    ]
    return "\n\n".join(part for part in parts if part)


def without_place(row: dict[str, str]) -> dict[str, str]:
    """Where a run comes from, but for its folder here."""
    return {title: text for title, text in row.items() if title != "directory"}
