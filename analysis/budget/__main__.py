"""Matches the sizes of architectures in parameters, training FLOPs or training time.

python -m analysis.budget --config=configs/cldr.py --equal=parameters --to=1_000_000
python -m analysis.budget --config=configs/cldr.py --equal=flops --output=space.py

Without --to, the budget is the cost of the first of --models. The width is varied and
the other sizes scale with it; --vary=steps keeps the sizes instead. --output is a
search space for sweep.py, which must get the same --config.KEY=VALUE. No data is
prepared: vocabularies count as full, and each step is on the longest batch.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from analysis import budget
from utils import cli
from utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configs/DATA.py, without a model.", lock_config=True
)
EQUAL = flags.DEFINE_enum(
    "equal", "parameters", list(budget.COSTS), "Cost of training that is equal."
)
TO = flags.DEFINE_string("to", None, "Budget; default: that of the first model.")
MODELS = flags.DEFINE_list(
    "models", ["transformer", "rnn", "transformer_xl"], "Arguments of the config file."
)
VARY = flags.DEFINE_enum(
    "vary", "width", ("width", "steps"), "The width, or steps with the sizes kept."
)
SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Runs of each model in the search space.", lower_bound=1
)
OUTPUT = flags.DEFINE_string("output", None, "Search space to write, for sweep.py.")


def main() -> None:
    """Prints the matched settings of each model."""
    models = [name.strip() for name in MODELS.value if name.strip()]
    if not models:
        raise UserError("--models is empty: name models, --models=rnn,transformer")
    if EQUAL.value == "seconds":
        print(
            "warning: measured times vary; under other load, or on another machine, "
            "other widths take as long",
            file=sys.stderr,
        )
    if CONFIG.value is None:
        cli.fail("flag --config=FILE is missing")
    config = config_flags.get_config_filename(flags.FLAGS["config"])
    target, overrides = budget.parse_target(TO.value), cli.overrides(CONFIG)
    matches = budget.match_models(
        config, models, EQUAL.value, target, VARY.value, overrides
    )
    format_cost = budget.COSTS[EQUAL.value][1]
    print(budget.format_table(matches, format_cost))
    if OUTPUT.value:
        path = Path(OUTPUT.value).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        source = budget.space_source(config, matches, format_cost, SEEDS.value)
        path.write_text(source, encoding="utf8")
        print(path)


if __name__ == "__main__":
    cli.run_main(main)
