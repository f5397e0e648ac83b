"""Scores runs on a split, one after the other in one process, as eval.py does.

python -m analysis.compare.score --split=test --run=DIR1 --run=DIR2
"""

from absl import flags

from utils import cli

RUNS = flags.DEFINE_multi_string("run", None, "Run directory.", required=True)
SPLIT = flags.DEFINE_string("split", "test", "Split to score.")


def main() -> None:
    """Prints the path of each score card."""
    from experiment import inference, restore

    for workdir in RUNS.value:
        run = restore.open_run(workdir, "best", {})
        _, path = inference.evaluate(run, SPLIT.value)
        print(path, flush=True)


if __name__ == "__main__":
    cli.run_main(main)
