"""Compares architectures at equal budgets: searches, fresh seeds, scores and a page.

python -m analysis.compare --config=configs/cldr.py --trials=16 --budget=1_000_000
python -m analysis.compare --config=configs/cldr.py --equal=flops --vary=steps \
    --budgets=3e12,1e13,3e13 --workdir=runs/ladder --population=16
python -m analysis.compare --workdir=runs/cldr,runs/stdlib --output=both.html

Each of --models gets the same number of points of its space in --space. At each point
its sizes, or its steps, are such that it takes the budget; without one, that is what
the first model takes. The best point by the validation score is trained again with
--seeds other seeds, and these runs are scored once on --split. The same command resumes
a comparison. --dry_run prepares the corpus, whose vocabulary is part of the sizes, and
prints the points and their costs. With --workdir alone the page is written again;
several folders, each of another corpus, make one page.
"""

import concurrent.futures
import math
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from analysis.compare.plan import VARIED, Plan, Request, total_flops
from analysis.compare.sizes import QUANTITIES
from utils import cli, cli_inputs
from utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configs/DATA.py, without a model.", lock_config=True
)
MODELS = flags.DEFINE_list(
    "models", ["rnn", "transformer", "transformer_xl"], "Arguments of the config file."
)
EQUAL = flags.DEFINE_enum(
    "equal", "parameters", list(QUANTITIES), "Quantity that is equal."
)
BUDGET = flags.DEFINE_string(
    "budget", None, "Amount of it; default: what the first model takes."
)
BUDGETS = flags.DEFINE_list("budgets", [], "Several budgets, for curves of scaling.")
VARY = flags.DEFINE_enum(
    "vary", None, VARIED, "The width (default), or steps with the sizes kept."
)
SPACE = flags.DEFINE_string(
    "space", "configs/sweeps/tuning.py", "Search space of each model."
)
TRIALS = flags.DEFINE_integer(
    "trials", None, "Points of each model; default: the space's.", lower_bound=1
)
SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Runs of the best point, each with a fresh seed.", lower_bound=1
)
SPLIT = flags.DEFINE_string("split", "test", "Split that these runs are scored on.")
WORKDIR = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "workdir",
    [],
    "Folder of the comparison; default: runs/compare-DATA-EQUAL. Without --config, "
    "one or more that are finished.",
)
OUTPUT = flags.DEFINE(
    cli_inputs.PlacesParser(),
    "output",
    [],
    "Files to write: .html, .md or .json; default: report.* in --workdir.",
)
WORKERS = flags.DEFINE_integer(
    "workers", 1, "Number of trials at once, on equal parts of the devices."
)
POPULATION = flags.DEFINE_integer(
    "population", 1, "Number of trials that a worker trains as one program."
)
SUFFIXES = (".html", ".md", ".json")

SMALLEST = flags.DEFINE_float(
    "smallest",
    None,
    "Smallest difference of interest, in units of the score: how many seeds would find "
    "it where the verdict is open; default: the observed difference.",
    lower_bound=1e-9,
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan; train nothing.")


def main() -> int:
    """Returns exit code 0 when all runs are scored, 75 after a signal."""
    outputs = [Path(name.strip()).expanduser() for name in OUTPUT.value]
    for path in outputs:
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={path} must end in one of {', '.join(SUFFIXES)}")
    if CONFIG.value is None:
        if not WORKDIR.value:
            cli.fail("flag --config=FILE, or --workdir=DIR of a comparison, is missing")
        write_pages(WORKDIR.value, outputs)
        return 0
    request = make_request()
    if DRY_RUN.value:
        from analysis.compare import runner

        plan = make_plan(request)
        flops = total_flops(plan, request, runner.open_corpus(request))
        print(plan.table(request, flops))
        return 0
    name = f"compare-{Path(request.config).stem}-{request.equal}"
    workdir, *others = WORKDIR.value or [f"runs/{name}"]
    if others:
        raise UserError("--workdir: a comparison with --config has one folder")
    code = train(request, workdir)
    if code == 0:
        write_pages([workdir], outputs)
    return code


def train(request: Request, workdir: str) -> int:
    """Plans a comparison, or resumes it, and runs what is left of it."""
    from analysis.compare import runner
    from analysis.compare.folder import ComparisonFolder
    from sweeps.launch import Placement

    placement = Placement(WORKERS.value, POPULATION.value)
    placement.allocate()  # refuses more workers than devices
    folder = ComparisonFolder.open(workdir)
    if folder.exists:
        plan = folder.read_plan()
        folder.check_request(plan, request)
    else:
        plan = make_plan(request)
        folder.write_plan(plan)
    return runner.run(plan, request, folder, placement)


def write_pages(workdirs: Sequence[str], outputs: Sequence[Path]) -> None:
    """Writes the results of comparisons, and prints the verdict."""
    from analysis.compare.page import renderers
    from analysis.compare.page.content import make_content
    from analysis.compare.results import ComparisonResults

    results = [ComparisonResults.from_folder(workdir) for workdir in workdirs]
    if not outputs:
        if len(results) > 1:
            raise UserError("--output is missing: the page of several comparisons")
        outputs = [results[0].folder.path / f"report{suffix}" for suffix in SUFFIXES]
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = make_content(results, path, SMALLEST.value)
        text = {
            ".html": lambda content: renderers.render_html(content),
            ".md": lambda content: renderers.render_markdown(content),
            ".json": lambda content: renderers.render_json(content, results),
        }[path.suffix](content)
        path.write_text(text, encoding="utf8")
    for corpus in content.corpora:
        print("\n".join(corpus.sentences))
    print("\n".join(map(str, outputs)))


def make_request() -> Request:
    """Returns what the flags ask for. Raises UserError for flags that do not fit."""
    if BUDGET.value is not None and BUDGETS.value:
        raise UserError("--budget and --budgets exclude each other")
    texts = BUDGETS.value or ([] if BUDGET.value is None else [BUDGET.value])
    return Request(
        config=config_flags.get_config_filename(flags.FLAGS["config"]),
        overrides=cli.overrides(CONFIG),
        models=tuple(name.strip() for name in MODELS.value if name.strip()),
        equal=EQUAL.value,
        budgets=tuple(map(parse_budget, texts)),
        vary=VARY.value or ("steps" if EQUAL.value == "tokens" else "width"),
        space=SPACE.value,
        trials=TRIALS.value,
        seeds=SEEDS.value,
        split=SPLIT.value,
    )


def parse_budget(text: str) -> float:
    """Parses a budget. Raises UserError for anything but a finite number above 0."""
    try:
        budget = float(text)
    except ValueError as error:
        raise UserError(f"A budget is a number, such as 3e6, not {text!r}") from error
    if not 0 < budget < math.inf:
        raise UserError(f"A budget of {text} must be finite and greater than 0")
    return budget


def make_plan(request: Request) -> Plan:
    """Plans a comparison, without holding devices that the trials need."""
    from analysis.compare import runner

    if request.equal == "seconds":
        print(
            "warning: measured times vary; under other load, or on another machine, "
            "other sizes take as long",
            file=sys.stderr,
        )
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(runner.make_plan, request).result()
    import jax

    jax.config.update("jax_platforms", "cpu")  # only shapes are computed
    return runner.make_plan(request)


if __name__ == "__main__":
    cli.run_main(main)
