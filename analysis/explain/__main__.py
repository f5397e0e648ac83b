r"""Explains a training step that was not finite, or whose loss rose.

python -m analysis.explain --workdir=runs/rnn --step=1200
python -m analysis.explain --workdir=runs/rnn --step=1200 --reference=1150
python -m analysis.explain --workdir=runs/rnn --step=1200 --data.dir=/mnt/data
python -m analysis.explain --workdir=runs/rnn --step=1200 \
    --batch=runs/rnn/replay/skipped/1200-1199.npz

The step is computed again, one operation at a time, from the newest checkpoint before
it. The report names the first operation with a value that is not finite, or far larger
than in the reference, with its layer, row, position and head; the text of that row;
what each row adds to loss and gradient; sizes by layer; the log around the step.
"""

from absl import flags

from configs import base
from utils import cli, cli_inputs
from utils.paths import DATA_PLACES

WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.", required=True)
STEP = flags.DEFINE_integer(
    "step", None, "Step to explain, counted from 1.", required=True
)
REFERENCE = flags.DEFINE_integer(
    "reference", None, "Step to compare with; default: the last finite one before."
)
BATCH = flags.DEFINE_string(
    "batch", None, "File of batches that a run kept, to use in place of its data."
)
MAX_REPLAY_STEPS = flags.DEFINE_integer(
    "max_replay_steps", 1000, "Largest number of steps to train before the step."
)
ROWS = flags.DEFINE_bool("rows", True, "Compute loss and gradient of each row.")
DATA = cli_inputs.config_section("data", base.get_config().data, DATA_PLACES)


def main() -> None:
    """Prints the report of the step."""
    from analysis.explain.explanation import explain
    from analysis.explain.report import format_report

    explanation = explain(
        WORKDIR.value,
        STEP.value,
        places=cli.overrides(DATA),
        batches=BATCH.value,
        max_steps=MAX_REPLAY_STEPS.value,
        reference=REFERENCE.value,
        with_rows=ROWS.value,
    )
    print(format_report(explanation))


if __name__ == "__main__":
    cli.run_main(main)
