"""Comparison of measured systems: JSON lines and ratios with ranges."""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.interleaved import Plan, Times, measure
from benchmarks.harness.protocol import Missing, Process, spread
from benchmarks.harness.workloads import FASTEST, Product, flops

OURS = "ours"
ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-bench" / "bin" / "python"

Commands = dict[str, list[str]]  # by name of the system


def ours(*arguments: str) -> Commands:
    """Returns the command of our own system."""
    return {OURS: [sys.executable, "-m", "benchmarks.harness.subjects", *arguments]}


def peer(python: str, module: str, *arguments: str) -> list[str]:
    """Returns the command of another library in its environment."""
    return [python, "-m", f"benchmarks.peers.{module}", *arguments]


def compare(
    about: dict,
    commands: Commands,
    products: list[Product],
    tokens: int | None,
    goals: Sequence[tuple[str, float]],
    options: argparse.Namespace,
) -> dict:
    """Measures, prints a line per system and the summary, and returns the summary.

    Args:
      about: fields of every line.
      commands: command of every system.
      products: matrix products of our step; another system may report its own.
      tokens: tokens per step; None: each system counts its own.
      goals: pairs (FASTEST or a name, goal of the ratio).
      options: command-line options.
    """
    missing, processes = {}, []
    for name, command in commands.items():
        try:
            processes.append(Process(name, command, options.threads).begin())
        except Missing as error:
            missing[name] = str(error)
    try:
        found = measure(processes, plan_of(options))
        lines = {}
        for process in processes:
            times = found[process.name]
            try:
                if isinstance(times, Missing):
                    raise times
                line = line_of(process, times, products, tokens)
            except Missing as error:
                missing[process.name] = str(error)
                continue
            lines[process.name] = line
            print(json.dumps(about | {"subject": process.name} | line), flush=True)
    finally:
        for process in processes:
            process.close()
    for name, reason in missing.items():
        line = {"subject": name, "missing": reason}
        print(json.dumps(about | line), flush=True)
    summary = about | summary_of(lines, goals) | {"missing": sorted(missing)}
    print(json.dumps(summary), flush=True)
    return summary | {"lines": lines}


def line_of(
    process: Process, times: Times, products: list[Product], tokens: int | None
) -> dict:
    """Returns the JSON line of a system; asks for facts after the last chunk."""
    facts = process.ask("facts")
    seconds = spread(times.seconds)
    tokens = facts.pop("tokens", tokens)
    computed = facts.pop("flops", None) or flops(products)
    work = {}
    if computed:
        achieved = computed / seconds["median"]
        peak = computed / sum(process.ask("products"))
        work = {
            "flops": computed,
            "flops_per_second": achieved,
            "peak_matmul_flops_per_second": peak,
            "fraction_of_peak": achieved / peak,
        }
    return {
        "seconds": seconds,
        "steps": len(times.seconds),
        "tokens_per_second": tokens / seconds["median"],
        **work,
        "peak_megabytes": facts.pop("peak_bytes") / 1e6,
        "imported_megabytes": facts.pop("imported_bytes") / 1e6,
        "first_seconds": times.first,
        "others": {
            "median": statistics.median(times.others),
            "highest": max(times.others),
        },
        **facts,
    }


def summary_of(lines: dict[str, dict], goals: Sequence[tuple[str, float]]) -> dict:
    """Returns ratios with ranges of quartiles, and goals."""
    if OURS not in lines:
        return {"summary": True, "error": "ours was not measured"}
    peers = {name: line for name, line in lines.items() if name != OURS}
    summary = {"summary": True, "ours": lines[OURS]["seconds"]["median"]}
    if not peers:
        return summary | {"goals": {name: unmet(goal) for name, goal in goals}}
    own = per_token(lines[OURS])
    ratios = {name: ratio(own, per_token(line)) for name, line in peers.items()}
    fastest = min(ratios, key=lambda name: ratios[name]["ratio"])
    memory = statistics.median(line["peak_megabytes"] for line in peers.values())
    reached = {}
    for name, goal in goals:
        got = ratios.get(fastest if name == FASTEST else name)
        reached[name] = unmet(goal) | (got or {})
        if got:
            reached[name]["is_met"] = got["ratio"] >= goal
    return summary | {
        "fastest_peer": fastest,
        "ratios": ratios,
        "goals": reached,
        "memory": {
            "ours": lines[OURS]["peak_megabytes"],
            "median_peer": memory,
            "is_met": lines[OURS]["peak_megabytes"] <= memory,
        },
    }


def per_token(line: dict) -> dict[str, float]:
    """Returns seconds per token; systems may differ in tokens per step."""
    tokens = line["tokens_per_second"] * line["seconds"]["median"]
    return {name: value / tokens for name, value in line["seconds"].items()}


def unmet(goal: float) -> dict:
    """Returns a goal that has not been measured."""
    return {"goal": goal, "is_met": None}


def ratio(own: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Returns the speed ratio with its range by the quartiles of both."""
    return {
        "ratio": other["median"] / own["median"],
        "low": other["low"] / own["high"],
        "high": other["high"] / own["low"],
    }


def add_options(parser: argparse.ArgumentParser, **defaults) -> None:
    """Adds the options of all benchmarks."""
    plan = Plan(**defaults)
    parser.add_argument("--tiny", action="store_true", help="a tiny run, for tests")
    parser.add_argument("--rounds", type=int, default=plan.rounds)
    parser.add_argument("--steps", type=int, default=plan.steps, help="of a chunk")
    parser.add_argument("--warm", type=int, default=plan.warm, help="steps before")
    parser.add_argument("--tries", type=int, default=plan.tries, help="of a chunk")
    parser.add_argument(
        "--threshold",
        type=float,
        default=plan.threshold,
        help="share of the processors that others may use before a chunk is repeated",
    )
    parser.add_argument(
        "--patience", type=float, default=plan.patience, help="seconds for quiet"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", default=str(PEERS), help="their Python; '': none")
    parser.add_argument("--only", default="", help="subjects, such as ours,torch_sdpa")


def plan_of(options: argparse.Namespace) -> Plan:
    """Returns the measurement plan of the options."""
    if options.tiny:
        return Plan(rounds=2, steps=1, warm=1, tries=1)
    names = ("rounds", "steps", "threshold", "tries", "warm", "patience")
    return Plan(**{name: getattr(options, name) for name in names})


def chosen(commands: Commands, options: argparse.Namespace) -> Commands:
    """Selects the systems of `--only`; ours alone if `--peers` is empty."""
    if not options.peers:
        return {OURS: commands[OURS]}
    only = options.only.split(",") if options.only else list(commands)
    return {name: command for name, command in commands.items() if name in only}


def checked(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> argparse.Namespace:
    """Parses the options and checks their ranges."""
    options = parser.parse_args(arguments)
    for name in ("rounds", "steps", "warm", "tries", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)} must be at least 1")
    if options.rounds * options.steps < 2 and not options.tiny:
        parser.error("--rounds x --steps: at least 2 are needed for quartiles steps")
    return options


def choices(
    parser: argparse.ArgumentParser, flag: str, text: str, known: Sequence[str]
) -> list[str]:
    """Splits a comma-separated list of known names."""
    names = text.split(",")
    for name in names:
        if name not in known:
            parser.error(f"--{flag}={text}: choose from {', '.join(known)}")
    return names
