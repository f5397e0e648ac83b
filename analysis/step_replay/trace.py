"""Evaluation of a traced program one equation at a time, outside of `jit`.

    program = jax.make_jaxpr(step)(state, carry, batch)
    for equation in trace(program, jax.tree.leaves((state, carry, batch))):
        print(equation.module, equation.primitive, equation.outputs)

Calls, loops and branches are entered, so that each iteration of a scan is seen alone.
A value is freed after the last equation that reads it. Two programs are compared by
two traces side by side, as with `zip`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Array

ROOT = Path(__file__).parents[2]
LIBRARIES = str(Path(jax.__file__).parents[1])  # of installed packages

# Primitives that call the program in their parameter of one of these names.
CALLS = frozenset(
    {
        *("jit", "closed_call", "core_call", "call", "remat2", "checkpoint"),
        *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
    }
)
CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")

# Names that move values into and out of a loop, which are no primitives of JAX.
LOOP_INPUT, LOOP_OUTPUT = "loop_input", "loop_output"


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of a trace.

    Attributes:
      id: number that no other value of the trace has; None for a constant.
    """

    id: int | None
    array: Array


@dataclasses.dataclass(frozen=True)
class Equation:
    """An equation that was evaluated.

    Attributes:
      key: position in the program, one index per level of calls, loops and branches;
        the same in every trace of a program.
      iteration: index of each loop around it, outermost first.
      module: path of the module, such as "encoder/layers_3/self_attention"; "" outside
        of a model.
      scopes: other named scopes, outermost first.
      direction: "forward" or "backward" inside of a gradient, otherwise "".
      primitive: name of the operation, such as "dot_general".
      source: "FILE:LINE (FUNCTION)" of this code; "" where none is known.
    """

    key: tuple[int, ...]
    iteration: tuple[int, ...]
    module: str
    scopes: tuple[str, ...]
    direction: str
    primitive: str
    source: str
    params: dict[str, Any] = dataclasses.field(repr=False)
    inputs: Sequence[Value] = dataclasses.field(repr=False)
    results: Sequence[Value] = dataclasses.field(repr=False)

    @property
    def outputs(self) -> list[Array]:
        """The arrays that it computed."""
        return [value.array for value in self.results]


Trace = Generator[Equation, None, list[Value]]


def trace(program: ClosedJaxpr, args: Sequence[Array]) -> Trace:
    """Evaluates a program, and yields each equation when it was evaluated.

    The generator returns the values of the program's outputs; those of `args` have the
    ids 0, 1, ... in their order.

    Args:
      program: what `jax.make_jaxpr` returns.
      args: flat inputs of the program.
    """
    ids = itertools.count()
    values = [Value(next(ids), arg) for arg in args]
    return _evaluate(program, values, _Frame(ids))


@dataclasses.dataclass(frozen=True)
class _Frame:
    """Place of a program in the whole: scopes, keys and iterations around it."""

    ids: Iterator[int]
    stack: tuple = ()
    key: tuple[int, ...] = ()
    iteration: tuple[int, ...] = ()

    def inside(self, eqn: JaxprEqn, index: int, *iteration: int) -> "_Frame":
        return _Frame(
            self.ids,
            (*self.stack, *eqn.source_info.name_stack.stack),
            (*self.key, index),
            (*self.iteration, *iteration),
        )

    def equation(self, eqn: JaxprEqn, index, inputs, arrays, name="") -> Equation:
        frame = self.inside(eqn, index)
        module, scopes, direction = read_scopes(frame.stack)
        return Equation(
            key=frame.key,
            iteration=self.iteration,
            module=module,
            scopes=scopes,
            direction=direction,
            primitive=name or eqn.primitive.name,
            source=source_line(eqn),
            params=eqn.params,
            inputs=inputs,
            results=[Value(next(self.ids), array) for array in arrays],
        )


def _evaluate(program: ClosedJaxpr | Jaxpr, args: list[Value], frame: _Frame) -> Trace:
    """Evaluates a program whose inputs are values of the trace."""
    jaxpr, constants = program, []
    if isinstance(program, ClosedJaxpr):
        jaxpr, constants = program.jaxpr, program.consts
    known = dict(zip(jaxpr.constvars, [Value(None, c) for c in constants], strict=True))
    known |= zip(jaxpr.invars, args, strict=True)
    del args

    def read(variable):
        if isinstance(variable, Literal):
            return Value(None, variable.val)
        return known[variable]

    unused_after = _last_uses(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        inputs = list(map(read, eqn.invars))
        if evaluate := EVALUATORS.get(eqn.primitive.name):
            results = yield from evaluate(eqn, index, inputs, frame)
        else:
            equation = frame.equation(eqn, index, inputs, _bind(eqn, inputs))
            results = equation.results
            yield equation
            del equation
        known |= zip(eqn.outvars, results, strict=True)
        del inputs, results
        for variable in unused_after[index]:
            known.pop(variable, None)
    return list(map(read, jaxpr.outvars))


def _last_uses(jaxpr: Jaxpr) -> list[list]:
    """Returns the variables that no equation after each one reads."""
    last = {}
    for index, eqn in enumerate(jaxpr.eqns):
        variables = (*eqn.invars, *eqn.outvars)
        last |= {v: index for v in variables if not isinstance(v, Literal)}
    for variable in jaxpr.outvars:
        if not isinstance(variable, Literal):
            last.pop(variable, None)
    unused_after = [[] for _ in jaxpr.eqns]
    for variable, index in last.items():
        unused_after[index].append(variable)
    return unused_after


def _bind(eqn: JaxprEqn, inputs: list[Value]) -> list[Array]:
    """Applies a primitive to arrays."""
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        outputs = eqn.primitive.bind(*(value.array for value in inputs), **params)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def _call(eqn, index, inputs, frame: _Frame) -> Trace:
    """Enters a program that is called."""
    program = next(eqn.params[name] for name in CALLED if name in eqn.params)
    return (yield from _evaluate(program, inputs, frame.inside(eqn, index)))


def _branch(eqn, index, inputs, frame: _Frame) -> Trace:
    """Enters the branch that a condition chooses."""
    branches, (choice, *args) = eqn.params["branches"], inputs
    chosen = min(max(int(choice.array), 0), len(branches) - 1)
    inside = frame.inside(eqn, index)
    inside = dataclasses.replace(inside, key=(*inside.key, chosen))
    return (yield from _evaluate(branches[chosen], args, inside))


def _while(eqn, index, inputs, frame: _Frame) -> Trace:
    """Repeats the body of a loop while its condition holds."""
    params = eqn.params
    num_condition, num_body = params["cond_nconsts"], params["body_nconsts"]
    condition = inputs[:num_condition]
    body = inputs[num_condition : num_condition + num_body]
    carry = inputs[num_condition + num_body :]
    for iteration in itertools.count():
        arrays = [value.array for value in condition + carry]
        if not jex.jaxpr_as_fun(params["cond_jaxpr"])(*arrays)[0]:
            return carry
        inside = frame.inside(eqn, index, iteration)
        carry = yield from _evaluate(params["body_jaxpr"], body + carry, inside)


def _scan(eqn, index, inputs, frame: _Frame) -> Trace:
    """Evaluates the iterations of a scan, in their order of evaluation."""
    params, length = eqn.params, eqn.params["length"]
    num_constants, num_carry = params["num_consts"], params["num_carry"]
    constants = inputs[:num_constants]
    carry = inputs[num_constants : num_constants + num_carry]
    stacked = inputs[num_constants + num_carry :]
    outputs: list[list[Value]] = [[] for _ in eqn.outvars[num_carry:]]
    order = range(length - 1, -1, -1) if params["reverse"] else range(length)
    for iteration in order:
        inside = frame.inside(eqn, index, iteration)
        arrays = [_slice(value.array, iteration) for value in stacked]
        read = inside.equation(eqn, -1, stacked, arrays, LOOP_INPUT)
        yield read
        args = constants + carry + list(read.results)
        results = yield from _evaluate(params["jaxpr"], args, inside)
        carry = results[:num_carry]
        for values, value in zip(outputs, results[num_carry:], strict=True):
            values.append(value)
    if params["reverse"]:
        outputs = [values[::-1] for values in outputs]
    shapes = [variable.aval for variable in eqn.outvars[num_carry:]]
    arrays = [
        _stack([value.array for value in values])
        if values
        else jnp.zeros(*_form(shape))
        for values, shape in zip(outputs, shapes, strict=True)
    ]
    gathered = frame.equation(
        eqn, index, list(itertools.chain(*outputs)), arrays, LOOP_OUTPUT
    )
    yield gathered
    return carry + list(gathered.results)


EVALUATORS = {
    **dict.fromkeys(CALLS, _call),
    "cond": _branch,
    "while": _while,
    "scan": _scan,
}


def _form(shape) -> tuple:
    return shape.shape, shape.dtype


@jax.jit
def _slice(array: Array, index: int) -> Array:
    return jax.lax.dynamic_index_in_dim(array, index, keepdims=False)


@jax.jit
def _stack(arrays: list[Array]) -> Array:
    return jnp.stack(arrays)


@functools.lru_cache(maxsize=4096)
def read_scopes(stack: tuple) -> tuple[str, tuple[str, ...], str]:
    """Returns module, other scopes and direction of a stack of named scopes.

    Flax names a scope after a module, or after a method as "module.method". Methods of
    the whole model, such as "Seq2Seq.encode", are other scopes.
    """
    module, scopes = [], []
    transforms = {one.name for one in stack if hasattr(one, "name") and _wraps(one)}
    for one in stack:
        if _wraps(one):
            continue
        for part in one.name.split("/"):
            name, _, _ = part.partition(".")
            if name[:1].isupper() or not name:
                scopes.append(part)
            elif name not in module[-1:]:
                module.append(name)
    direction = ""
    if "transpose" in transforms:
        direction = "backward"
    elif "jvp" in transforms:
        direction = "forward"
    return "/".join(module), tuple(scopes), direction


def _wraps(scope) -> bool:
    """Whether an element of a name stack is a transformation, such as jvp."""
    return type(scope).__name__ == "Transform"


def source_line(eqn: JaxprEqn) -> str:
    """Returns the innermost line of this code that made an equation."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback else ():
        if line := _project_line(frame.file_name, frame.line_num, frame.function_name):
            return line
    return ""


@functools.lru_cache(maxsize=65536)
def _project_line(file: str, line: int, function: str) -> str:
    path = Path(file)
    if file.startswith(LIBRARIES) or not path.is_relative_to(ROOT):
        return ""
    name = function.rpartition(".")[2]
    return f"{path.relative_to(ROOT)}:{line} ({name})"
