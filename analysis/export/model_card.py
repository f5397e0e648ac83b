"""The model card of an exported run (Mitchell et al. 2019), in Markdown."""

from data.registry import CORPORA, builder_class
from experiment.restore import TrainedRun
from experiment.setup import num_parameters

UNKNOWN = "not stated"
COMMANDS = {
    "translate": "one text a line in, its translation out",
    "continue": "the beginning of a text a line in, its continuation out",
    "label": "one input a line in, its labels out",
}
SETTINGS = (  # of `cfg.decode`, shown for the searches
    *("beam_size", "beam_groups", "diversity_penalty", "length_penalty"),
    *("coverage_penalty", "early_stopping", "temperature", "top_k", "top_p"),
    *("n_best", "min_length", "max_length", "max_length_ratio"),
    *("no_repeat_ngram_size", "repetition_penalty"),
)


def make_model_card(
    run: TrainedRun, about: dict, cards: dict[str, dict], facts: dict[str, str]
) -> str:
    """Returns a model card.

    Args:
      about: content of about.json.
      cards: score cards by name.
      facts: "license", "intended_use" and "data" as the user gives them; "" where they
        are not known.
    """
    cfg = run.experiment.cfg
    name = f"{about['architecture']} for {about['task'].replace('_', ' ')}"
    steps = ", ".join(map(str, run.steps))
    numbers = num_parameters(run.variables["params"])
    data_license = corpus_license(cfg.data.name)
    sections = [
        f"# {name}: {cfg.data.name or 'imported weights'}",
        f"- Parameters: {numbers:,}, checkpoint of step {steps}\n"
        f"- Licence of the weights: {facts['license'] or UNKNOWN}\n"
        f"- Exported with JAX {about['jax']}; needs that version or a later one",
        _usage(run, about),
        "## Intended use\n\n" + (facts["intended_use"] or UNKNOWN),
        f"## Data\n\n- Corpus: {cfg.data.name or UNKNOWN}\n"
        f"- Licence of the corpus: {data_license or UNKNOWN}"
        + (f"\n- {facts['data']}" if facts["data"] else ""),
        _scores(cards),
        _limits(run, about),
    ]
    return "\n\n".join(sections) + "\n"


def corpus_license(name: str | None) -> str:
    """Returns the licence of a corpus of this project; "" where it is not known."""
    own = (name or "").partition("/")[0].partition(":")[0]
    return getattr(builder_class(own), "LICENSE", "") if own in CORPORA else ""


def _usage(run, about) -> str:
    packages = ["jax", "flatbuffers", "numpy"]
    tokenizers = list(run.experiment.tokenizers.values())
    if any(one.kind in ("sentencepiece", "unigram") for one in tokenizers):
        packages.append("sentencepiece")
    if any(one.kind != "labels" and one.normalizer.moses for one in tokenizers):
        packages.append("sacremoses")
    command = about["command"]
    lines = [
        "## Usage",
        "",
        "```",
        f"pip install {' '.join(packages)}",
        "python model.zip --verify",
        f"python model.zip {command} < input.txt > output.txt",
        "```",
        "",
        f"`{command}`: {COMMANDS[command]}. `--scores` writes all outputs of a line.",
    ]
    if run.experiment.task.generates_text:
        decode = run.experiment.cfg.decode
        values = (f"{key} {decode[key]}" for key in SETTINGS if key in decode)
        lines += [
            f"`--search` is greedy, beam or sample; the default is {about['search']}.",
            f"Settings of the searches: {', '.join(values)}.",
        ]
    return "\n".join(lines)


def _scores(cards: dict[str, dict]) -> str:
    if not cards:
        return "## Scores\n\nThe run has no score card."
    parts = ["## Scores"]
    for name, card in cards.items():
        rows = ["| score | value | 95% interval |", "| --- | --- | --- |"]
        for metric, score in card["scores"].items():
            value, ends = score["value"], ""
            if score.get("low") is not None:
                ends = f"{score['low']:.4g} to {score['high']:.4g}"
            shown = "" if value is None else f"{value:.4g}"
            rows.append(f"| {metric} | {shown} | {ends} |")
        protocol = "\n".join(
            f"- {key}: {value}" for key, value in card["protocol"].items()
        )
        table = "\n".join(rows)
        parts.append(f"### {name}\n\n{table}\n\nProtocol:\n\n{protocol}")
    return "\n\n".join(parts)


def _limits(run, about) -> str:
    cfg, lines = run.experiment.cfg, []
    if run.experiment.task.generates_text:
        lines.append(
            f"The searches generate {about['max_length']} tokens at most "
            "(decode.max_length), a size that is fixed in the programs. The sizes of "
            "batches and inputs are not."
        )
        if cfg.decode.method == "mbr":
            lines.append(
                "The run's search chooses among samples by minimum Bayes risk; this "
                "file has the samples without the choice."
            )
        if cfg.decode.replace_unknown:
            lines.append("Unknown tokens are not replaced (decode.replace_unknown).")
        if cfg.data.document_order:
            lines.append("Each line is translated without the memory of those before.")
    else:
        lines.append(f"Longer inputs are cut to {about['max_length']} tokens.")
    for name, program in about["programs"].items():
        if program["lengths"]:
            lengths = ", ".join(map(str, program["lengths"]))
            lines.append(
                f"The program `{name}` reads segments with a memory, whose number is "
                f"fixed: there is one for each of the lengths {lengths}, and inputs "
                "are padded."
            )
    lines.append(
        "Outputs on another kind of device may differ in rare cases, since it rounds "
        "sums in another order; `--verify` counts equal outputs."
    )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
