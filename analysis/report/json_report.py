"""A comparison of runs as JSON, for programs: numbers, not their rounded text."""

import dataclasses
import json

from analysis.report.content import CURVES, Content, origin
from analysis.report.curves import curve_points
from analysis.report.runs import Run
from analysis.report.training_cost import AXES


def render(content: Content) -> str:
    """The whole document; the same runs give the same."""
    return json.dumps(document(content), indent=1, ensure_ascii=False) + "\n"


def document(content: Content) -> dict:
    """What the page shows, but for attention maps, which lie in the runs."""
    comparison = content.comparison
    return {
        "title": comparison.title,
        "split": comparison.split,
        "warnings": content.warnings(),
        "runs": [
            _run(run, scored.card)
            for run, scored in zip(content.runs, comparison.scored, strict=True)
        ],
        "differences": {
            key: dict(zip((run.label for run in content.runs), values, strict=True))
            for key, values in content.differences
        },
        "systems": [
            {
                "label": system.label,
                "runs": [run.label for run in system.runs],
                "scores": {
                    name: {"mean": mean, "deviation": deviation}
                    for name, (mean, deviation) in system.scores.items()
                },
            }
            for system in content.systems
        ],
        "pairs": [dataclasses.asdict(pair) for pair in content.pairs],
        "sweeps": [
            {
                "directory": str(sweep.path),
                "metric": sweep.metric,
                "direction": sweep.direction,
                "best": sweep.best,
                "importances": sweep.importances,
                "trials": list(sweep.trials),
            }
            for sweep in content.sweeps
        ],
        "effective_context": [
            dataclasses.asdict(one) | {"run": content.runs[one.run].label}
            for one in content.contexts
        ],
        "samples": [dataclasses.asdict(sample) for sample in content.samples],
    }


def _run(run: Run, card: dict) -> dict:
    spent = run.spent
    return {
        "label": run.label,
        **origin(run),
        "scores": card["scores"],
        "baselines": card.get("baselines", {}),
        "scored_step": card["step"],
        "protocol": card.get("protocol", {}),
        "parameters": run.about.get("parameters"),
        "tokens_per_second": run.tokens_per_second,
        "mfu": run.mfu,
        "peak_memory_bytes": run.peak_memory,
        "trained": {
            axis: spent.at(run.steps, axis) if spent else None for axis in AXES
        },
        "curves": {
            metric: {axis: curve_points(run, metric, axis) for axis in AXES}
            for metric in CURVES
        },
    }
