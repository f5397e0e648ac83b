"""Report of an explained step, as plain text."""

import math
from collections.abc import Iterator, Sequence

from analysis.explain.axes import POSITION, SOURCE_POSITION, TOKEN, format_indices
from analysis.explain.cause import GROWTH, Cause
from analysis.explain.explanation import Explanation, Place
from analysis.explain.operations import Examination
from analysis.explain.rows import TEXTS, RowGroup, row_ids, row_texts
from analysis.step_replay.trace import LOOP_INPUT
from training.observe.watch import group_name
from utils.text_tables import align_columns

MAX_NAMES = 3  # of parameters that are listed
# Outputs of a step that are named as what a cause leads to.
KINDS = {
    "metrics": "loss",
    "gradients": "gradient",
    "params": "new value",
    "carry": "carry",
}
INPUTS = {"params": "parameter", "opt_state": "optimizer state", "ema": "average"}
MAX_ROWS = 5  # of the batch, of each list
NUM_TEXTS = 2  # of rows in the table
NUM_LINES = 3  # of the log, before and after a step
LOGGED = ("loss", "gradient_norm", "learning_rate")


def format_report(explanation: Explanation) -> str:
    """Formats all sections, the cause first."""
    sections = [
        _summary(explanation),
        _causes(explanation),
        _rows(explanation),
        _layers(explanation),
        _log(explanation),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def number(value: float) -> str:
    """Formats with four significant digits."""
    return f"{value:.4g}"


def _summary(explanation: Explanation) -> list[str]:
    found, replay = explanation.examination, explanation.replay
    step, start = explanation.inputs.step, replay.start(explanation.inputs.step)
    origin = f"checkpoint {start}" if start else "the first state"
    batch = "kept in replay/" if step in replay.kept else "from the data"
    state = "finite" if found.is_finite else "NOT FINITE"
    lines = [
        f"step {step} of {replay.directory.path}: {state}",
        f"  loss {number(found.loss)}, gradient norm {number(found.gradient_norm)}, "
        f"learning rate {number(explanation.learning_rate)}",
        f"  state: {_steps_after(replay.distance(step))}{origin}; batch: {batch}",
    ]
    if replay.distance(step) == 0 and start < step - 1:
        lines[-1] = f"  state: unchanged since, from a later checkpoint; batch: {batch}"
    if (reference := explanation.reference) is None:
        return [*lines, "  compared with: no finite step is near"]
    own = (
        "" if reference.has_own_state else f", its batch with the state of step {step}"
    )
    examined = reference.examination
    lines.append(
        f"  compared with: step {reference.step}{own} (loss {number(examined.loss)}, "
        f"gradient norm {number(examined.gradient_norm)})"
    )
    return lines


def _steps_after(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''} after " if count else ""


def _causes(explanation: Explanation) -> list[str]:
    cause, growth = explanation.cause, explanation.growth
    if cause is None:
        if explanation.examination.is_finite and explanation.reference is None:
            return ["no cause is named: there is no other step to compare with"]
        if explanation.examination.is_finite:
            return ["no operation computed values far larger than in the other step"]
        return ["no operation is the origin of the values that are not finite"]
    lines = _cause(explanation, cause)
    if growth is not None:
        lines += ["before it:", *_cause(explanation, growth)]
    return lines


def _cause(explanation: Explanation, cause: Cause) -> list[str]:
    place = explanation.place(cause)
    kind = "not finite"
    if cause.growth:
        reference = explanation.reference.step
        kind = f"larger than {GROWTH} times the largest in step {reference}"
    amount = f"{place.count} of {place.size} values are {kind}"
    if cause.growth:
        amount += f" (up to {number(cause.growth)} times)"
    name = "extreme" if cause.growth else "bad"
    if cause.input_name:
        title = f"first {name} values: {_input(cause.input_name)}, before the step"
        lines = [title, f"  {amount}"]
    else:
        title = f"first {name} operation: {_operation(cause.operation)}"
        lines = [title, f"  {amount}"]
        if cause.operation.source:
            lines.append(f"  at {cause.operation.source}")
        if place.inputs:
            largest = ", ".join(map(number, place.inputs))
            lines.append(f"  largest magnitude of its inputs: {largest}")
    for item in place.indices.items():
        lines.append(f"  {_indices(explanation, cause, place, *item)}")
    if cause.input_name and cause.operation:
        lines.append(f"  first read by: {_operation(cause.operation)}")
    if affected := _affected(explanation, cause):
        lines.append(f"  leads to: {affected}")
    if place.rows and "row" not in place.indices:
        lines.append(f"  {format_indices('row', place.rows)} of the batch")
    for row in (place.rows or ())[:MAX_ROWS]:
        lines += _texts(explanation, row)
    return lines


def _input(name: str) -> str:
    """Formats the name of an input of the step."""
    kind, _, rest = name.partition("/")
    return f"{INPUTS.get(kind, kind)} {rest}"


def _affected(explanation: Explanation, cause: Cause) -> str:
    """Formats the outputs of the step that a cause leads to."""
    kinds: dict[str, list[str]] = {}
    for name in explanation.affected(cause):
        kind, _, rest = name.partition("/")
        if kind in KINDS:
            kinds.setdefault(KINDS[kind], []).append(rest)
    words = []
    for kind, names in kinds.items():
        if kind in ("loss", "carry"):
            words.append(kind)
        elif len(names) <= MAX_NAMES:
            words.append(f"{kind} of {', '.join(names)}")
        else:
            words.append(f"{kind} of {len(names)} parameters")
    return "; ".join(words)


def _operation(operation) -> str:
    where = f"in {operation.module}" if operation.module else "outside of the model"
    loop = ""
    if operation.iteration:
        loop = f", loop iteration {'.'.join(map(str, operation.iteration))}"
    direction = f", {operation.direction}" if operation.direction else ""
    return f"{operation.primitive} {where}{direction}{loop}"


def _indices(explanation: Explanation, cause: Cause, place: Place, name, values) -> str:
    """Formats indices of an axis, with the tokens of a vocabulary or of a row."""
    text = format_indices(name, values.tolist())
    tokens = None
    if name == TOKEN and len(values) <= MAX_ROWS:
        tokens = values.tolist()
        fields = [
            side
            for field, side in TEXTS.items()
            if side in explanation.setup.experiment.tokenizers
        ]
        named = [side for side in fields if side in cause.input_name]
        side = (named or fields)[0]
    rows = place.rows or ()
    if name in (POSITION, SOURCE_POSITION) and len(rows) == 1 and len(values) == 1:
        ids = row_ids(explanation.setup, explanation.host_batch, rows[0])
        field = next(f for f in ids if f.startswith("source") == (name != POSITION))
        if values[0] < len(ids[field]):
            tokens, side = [ids[field][values[0]]], TEXTS[field]
    if tokens is None:
        return text
    pieces = explanation.setup.experiment.tokenizers[side].pieces(tokens)
    return f"{text}: {', '.join(map(repr, pieces))}"


def _texts(explanation: Explanation, row: int) -> Iterator[str]:
    texts = row_texts(explanation.setup, explanation.host_batch, row)
    for side, text in texts.items():
        yield f"    row {row}, {side}: {text!r}"


def _rows(explanation: Explanation) -> list[str]:
    """Formats the rows with the largest share in the gradient, or bad ones."""
    groups = explanation.groups
    if not groups:
        return []
    finite = [group for group in groups if group.is_finite]
    if not finite:
        return ["every row of the batch is not finite: no single row is the cause"]
    total = sum(group.loss * group.weight for group in finite)
    norms = sum(group.gradient_norm for group in finite)
    table = [("rows", "weight", "loss", "share of loss", "gradient", "share")]
    for group in groups[:MAX_ROWS]:
        table.append(
            (
                _range(group),
                number(group.weight),
                number(group.loss),
                _percent(group.loss * group.weight, total),
                number(group.gradient_norm),
                _percent(group.gradient_norm, norms),
            )
        )
    lines = ["rows of the batch, by what they add to the norm of the gradient"]
    lines += [f"  {line}" for line in align_columns(table, "<>>>>>")]
    if explanation.rest is not None:
        bad, rest = explanation.rest
        lines.append(
            f"  without {format_indices('row', bad)}: loss {number(rest.loss)}, "
            f"gradient norm {number(rest.gradient_norm)}"
        )
    for group in groups[:NUM_TEXTS]:
        if len(group.rows) == 1:
            lines += _texts(explanation, group.rows[0])
    return lines


def _range(group: RowGroup) -> str:
    first, last = group.rows[0], group.rows[-1]
    return str(first) if first == last else f"{first}-{last}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}%" if math.isfinite(part) and whole else "-"


def _layers(explanation: Explanation) -> list[str]:
    """Formats the sizes of activations and gradients of each layer."""
    sizes = layer_sizes(explanation.examination)
    reference = explanation.reference
    before = layer_sizes(reference.examination) if reference else {}
    norms = explanation.norms
    head = ("layer", "forward", "backward", "parameters", "gradient", "update")
    table = [head]
    for layer in dict.fromkeys([*(name for name, _ in sizes), *norms]):
        cells = [
            _size(sizes.get((layer, direction)), before.get((layer, direction)))
            for direction in ("forward", "backward")
        ]
        values = [number(x) for x in norms[layer]] if layer in norms else ["", "", ""]
        table.append((layer, *cells, *values))
    factor = " (times that of the other step)" if explanation.reference else ""
    title = f"largest magnitude by layer{factor}, and norms"
    lines = align_columns(table, "<<<>>>")
    return [title, *(f"  {line}" for line in lines)]


def layer_sizes(found: Examination) -> dict[tuple[str, str], tuple[float, int]]:
    """Returns the largest magnitude and the number of bad values, by layer.

    They are of the arrays that another layer or the optimizer reads: activations in
    the forward pass, gradients in the backward pass.
    """
    producers: dict[int, tuple[str, str]] = {}
    sizes: dict[tuple[str, str], tuple[float, int]] = {}
    counted = set(found.masks)
    for operation in found.operations:
        layer = group_name(operation.module.split("/")), operation.direction
        for i in operation.inputs:
            made_by = producers.get(i, layer)
            is_output = made_by != layer and layer[1] in ("", made_by[1])
            if is_output and i in found.sizes and i not in counted:
                counted.add(i)
                largest, bad = sizes.get(made_by, (0.0, 0))
                size = found.sizes[i]
                sizes[made_by] = max(largest, size.largest), bad + size.nonfinite
        if operation.module and operation.direction:
            producers |= dict.fromkeys(operation.results, layer)
        inputs, results = operation.inputs, operation.results
        if operation.primitive == LOOP_INPUT and len(inputs) == len(results):
            # A slice of an activation that the backward pass reads is no gradient.
            slices = zip(results, inputs, strict=True)
            producers |= {one: producers[i] for one, i in slices if i in producers}
    return sizes


def _size(size, before) -> str:
    if size is None:
        return ""
    largest, bad = size
    if bad and not largest:
        return f"{bad} not finite"
    text = number(largest)
    if before and before[0]:
        text += f" (x{largest / before[0]:.3g})"
    return f"{text}, {bad} not finite" if bad else text


def _log(explanation: Explanation) -> list[str]:
    """Formats the log around the step, and the steps that were replayed."""
    step, replay = explanation.inputs.step, explanation.replay
    rows = {row["step"]: row for row in replay.rows if row["split"] == "train"}
    before = [k for k in sorted(rows) if k < step][-NUM_LINES:]
    after = [k for k in sorted(rows) if k >= step][:NUM_LINES]
    table = [("step", *LOGGED, "nonfinite_steps")]
    for k in before + after:
        table.append(_log_row(k, rows[k], rows[k].get("nonfinite_steps")))
    lines = []
    if len(table) > 1:
        lines = ["log around the step (means since the line before)"]
        lines += [f"  {line}" for line in align_columns(table, ">" * len(table[0]))]
    replayed = [k for k in sorted(replay.history) if k < step][-NUM_LINES:]
    if replayed:
        table = [("step", *LOGGED)]
        table += [_log_row(k, replay.history[k]) for k in replayed]
        lines += ["steps before it, computed again"]
        lines += [f"  {line}" for line in align_columns(table, ">" * len(table[0]))]
    return lines


def _log_row(step: int, row: dict, *more: int | None) -> Sequence[str]:
    """Formats a line of the log, whose null is a value that is not finite."""
    values = [row.get(name, "") for name in LOGGED]
    cells = [
        "not finite" if x is None else number(x) if x != "" else "" for x in values
    ]
    return (str(step), *cells, *("" if x is None else str(x) for x in more))
