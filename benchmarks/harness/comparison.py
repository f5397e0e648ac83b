"""Comparison of measured systems: JSON lines and ratios with ranges."""

import argparse
import contextlib
import dataclasses
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import cli
from benchmarks.harness.interleaved import Plan, Times, measure
from benchmarks.harness.protocol import Missing, Process, spread
from benchmarks.harness.workloads import Product, flops
from utils import strict_json

OURS = "ours"
ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-bench" / "bin" / "python"

FASTEST = "fastest"

Commands = dict[str, list[str]]  # by name of the system
Goals = dict[str, float]  # of the speed ratio, by FASTEST or the name of a system


def compare(
    about: dict,
    commands: Commands,
    products: list[Product],
    tokens: int | None,
    goals: Goals,
    options: argparse.Namespace,
) -> dict:
    """Measures, prints a line per system and the summary, and returns the summary.

    Args:
      about: fields of every line.
      products: matrix products of our step; another system may report its own.
      tokens: tokens per step; None: each system counts its own.
    """
    missing, processes = {}, []
    for name, command in commands.items():
        try:
            processes.append(Process(name, command, options.threads).begin())
        except Missing as error:
            missing[name] = str(error)
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.close)
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
            print(
                strict_json.dumps(about | {"subject": process.name} | line), flush=True
            )
    summary = about | summary_of(lines, goals) | {"missing": sorted(missing)}
    reasons = [{"subject": name, "missing": missing[name]} for name in missing]
    cli.print_lines([*(about | reason for reason in reasons), summary])
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
        peak_seconds = sum(process.ask("products"))
        work = {
            "flops": computed,
            "flops_per_second": computed / seconds["median"],
            "peak_matmul_flops_per_second": computed / peak_seconds,
            "fraction_of_peak": peak_seconds / seconds["median"],
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


def summary_of(lines: dict[str, dict], goals: Goals) -> dict:
    """Returns ratios with ranges of quartiles, and goals."""
    if OURS not in lines:
        return {"summary": True, "error": "ours was not measured"}
    peers = {name: line for name, line in lines.items() if name != OURS}
    own = per_token(lines[OURS])
    ratios = {name: ratio(own, per_token(line)) for name, line in peers.items()}
    fastest = min(ratios, key=lambda name: ratios[name]["ratio"], default=None)
    outcomes = {}
    for name, goal in goals.items():
        found = ratios.get(fastest if name == FASTEST else name, {})
        is_met = found["ratio"] >= goal if found else None
        outcomes[name] = {"goal": goal, "is_met": is_met} | found
    seconds, ours = lines[OURS]["seconds"]["median"], lines[OURS]["peak_megabytes"]
    summary = {"summary": True, "ours": seconds, "goals": outcomes}
    if not peers:
        return summary
    memory = statistics.median(line["peak_megabytes"] for line in peers.values())
    memory = {"ours": ours, "median_peer": memory, "is_met": ours <= memory}
    return summary | {"fastest_peer": fastest, "ratios": ratios, "memory": memory}


def per_token(line: dict) -> dict[str, float]:
    """Returns seconds per token; systems may differ in tokens per step."""
    tokens = line["tokens_per_second"] * line["seconds"]["median"]
    return {name: value / tokens for name, value in line["seconds"].items()}


def ratio(own: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Returns the speed ratio with its range by the quartiles of both."""
    return {
        "ratio": other["median"] / own["median"],
        "low": other["low"] / own["high"],
        "high": other["high"] / own["low"],
    }


def make_parser(doc: str, **defaults) -> argparse.ArgumentParser:
    """Returns a parser with the options of all comparisons.

    Args:
      defaults: values of `Plan` that differ from its own.
    """
    parser = cli.make_parser(doc)
    for field in dataclasses.fields(Plan):
        parser.add_argument(
            f"--{field.name}",
            type=cli.positive if isinstance(field.default, int) else float,
            default=defaults.get(field.name, field.default),
            help=field.metadata["help"],
        )
    parser.add_argument("--threads", type=cli.positive, default=os.cpu_count())
    parser.add_argument("--peers", default=str(PEERS), help="their Python; '': none")
    parser.add_argument("--only", default="", help="subjects, such as ours,torch_sdpa")
    return parser


def parse_options(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> argparse.Namespace:
    """Parses the options; invalid ones exit with code 2."""
    tiny = {"rounds": 2, "steps": 1, "warm": 1, "tries": 1}
    options = cli.parse_options(parser, arguments, **tiny)
    if options.rounds * options.steps < 2:
        parser.error("--rounds x --steps: at least 2 are needed for quartiles")
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    """Returns the measurement plan of the options."""
    names = (field.name for field in dataclasses.fields(Plan))
    return Plan(**{name: getattr(options, name) for name in names})


def select_commands(
    options: argparse.Namespace, ours: Sequence[str], peers: dict[str, Sequence[str]]
) -> Commands:
    """Returns the commands of the systems that --only and --peers select, ours first.

    Args:
      ours: our module in benchmarks/harness, and its flags.
      peers: a module in benchmarks/peers and its flags, by name.
    """
    tiny = ["--tiny"] if options.tiny else []
    module, *flags = ours
    module = f"benchmarks.harness.{module}"
    commands = {OURS: [sys.executable, "-m", module, *flags, *tiny]}
    if not options.peers:
        return commands
    for name, (module, *flags) in peers.items():
        module = f"benchmarks.peers.{module}"
        commands[name] = [options.peers, "-m", module, *flags, *tiny]
    only = options.only.split(",") if options.only else commands
    return {name: command for name, command in commands.items() if name in only}
