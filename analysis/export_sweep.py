"""Exports the trials of a sweep as a study of Optuna, which optuna-dashboard shows.

python -m analysis.export_sweep --sweep=gs://bucket/sweep --database=study.db
optuna-dashboard sqlite:///study.db
"""

from pathlib import Path

from absl import flags

from utils import cli
from utils.errors import UserError

SWEEP = flags.DEFINE_string("sweep", None, "Folder of the sweep.", required=True)
OUTPUT = flags.DEFINE_string("database", "study.db", "SQLite file to write.")


def export(workdir: str, output: Path) -> int:
    """Writes the trials that have started to a new database; returns their number.

    A trial that is to be resumed counts as running. Times are user attributes.
    """
    import optuna

    from analysis.report.sweep_results import make_distribution, to_optuna_value
    from sweeps.adaptive import DIRECTIONS, STATES
    from sweeps.launch import read_results
    from sweeps.storage import Storage
    from sweeps.trial_state import DONE

    if output.exists():
        raise UserError(f"--database={output} exists: name a new file")
    output.parent.mkdir(parents=True, exist_ok=True)
    storage = Storage(workdir)
    trials, metric = read_results(storage)
    trials = [trial for trial in trials if trial.point is not None]
    keys = dict.fromkeys(key for trial in trials for key in trial.point)
    distributions = {
        key: make_distribution(
            [to_optuna_value(t.point[key]) for t in trials if key in t.point]
        )
        for key in keys
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{output}",
        study_name=storage.path.name,
        direction=DIRECTIONS[metric.direction],
    )
    for trial in trials:
        row = trial.to_json()
        state = optuna.trial.TrialState[STATES[trial.state]]
        names = ("trial", "state", "attempts", "chip_seconds", "lost_seconds", "error")
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=trial.value if trial.state == DONE else None,
                params={key: to_optuna_value(x) for key, x in trial.point.items()},
                distributions={key: distributions[key] for key in trial.point},
                intermediate_values=trial.values,
                user_attrs={name: row[name] for name in names},
            )
        )
    return len(trials)


def main() -> None:
    """Writes the database and prints how to open it."""
    output = Path(OUTPUT.value).expanduser()
    count = export(SWEEP.value, output)
    print(f"{count} trials: optuna-dashboard sqlite:///{output}")


if __name__ == "__main__":
    cli.run_main(main)
