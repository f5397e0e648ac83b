"""Makes architectures equal: in parameters, in training FLOPs or in training time.

python -m analysis.budget --config=configs/cldr.py --equal=parameters --to=1_000_000
python -m analysis.budget --config=configs/cldr.py --equal=flops --output=space.py

Without --to all get what the first of --models has by itself. What is solved for is
the width, with the other sizes along, or --vary=steps. --output is a space for
sweep.py, which must get the same --config.KEY=VALUE. Nothing is prepared:
vocabularies count as full, and a step is one on the longest batch.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from analysis.budget.equal_models import (
    COSTS,
    equal_models,
    parse_target,
    space_text,
    table,
)
from utils import cli
from utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configs/DATA.py, without a model.", lock_config=True
)
EQUAL = flags.DEFINE_string("equal", "parameters", "Or flops, seconds: of training.")
TO = flags.DEFINE_string("to", None, "How many; as the first of the models has.")
MODELS = flags.DEFINE_list(
    "models", ["transformer", "rnn", "transformer_xl"], "Behind the config's colon."
)
VARY = flags.DEFINE_string("vary", "width", "Or steps, which keeps the sizes.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Of the space: runs of each model.")
OUTPUT = flags.DEFINE_string("output", None, "Space to write, for sweep.py.")


def main() -> None:
    """Prints what each model is given."""
    models = [name.strip() for name in MODELS.value if name.strip()]
    if not models:
        raise UserError("--models is empty: name some, rnn,transformer")
    if SEEDS.value < 1:
        raise UserError(f"--seeds={SEEDS.value}: at least 1")
    if EQUAL.value == "seconds":
        print(
            "warning: clocks are noisy; with other work on this machine, or on "
            "another machine, other widths take as long",
            file=sys.stderr,
        )
    if CONFIG.value is None:
        cli.fail("flag --config=FILE is missing")
    config = config_flags.get_config_filename(flags.FLAGS["config"])
    target, given = parse_target(TO.value), cli.overrides(CONFIG)
    found = equal_models(config, models, EQUAL.value, target, VARY.value, given)
    words = COSTS[EQUAL.value][1]
    print(table(found, words))
    if OUTPUT.value:
        path = Path(OUTPUT.value).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(space_text(config, found, words, SEEDS.value), encoding="utf8")
        print(path)


if __name__ == "__main__":
    cli.run_main(main)
