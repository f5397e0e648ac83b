"""What a device holds of a step, by the compiler's own count; it need not be there."""

import dataclasses
import time

import jax

from analysis.plan.step import PlannedStep, batch_of
from experiment.setup import TrainingSetup
from training.optim.optimizers import make_optimizer
from training.parallel.partitioner import JitPartitioner
from training.step import make_state


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A program, and bytes on each device.

    Attributes:
      held: of parameters, optimiser, carry and batch.
      working: of what stands only while a step is made.
      seconds: that compiling took.
    """

    program: jax.stages.Compiled
    held: int
    working: int
    seconds: float

    @property
    def total(self) -> int:
        """Of both."""
        return self.held + self.working

    @classmethod
    def of(cls, step: PlannedStep, partitioner: JitPartitioner) -> "CompiledStep":
        """The step on the largest batch.

        Raises MemoryError where a compiler says that it does not fit, and UserError
        under pmap.
        """
        lowered = lower(step, partitioner)
        begin = time.perf_counter()
        try:
            program = compiled(lowered)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(reason_of(str(error))) from error
        seconds = time.perf_counter() - begin
        sizes = program.memory_analysis()
        held = sizes.argument_size_in_bytes
        new = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        return cls(program, held, sizes.temp_size_in_bytes + max(new, 0), seconds)


def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The program; products are cuBLAS's where XLA has no tiles of its own for one.

    It tries them on a GPU; where none is there it may find none that is allowed.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "find output tile sizes" not in str(error):
            raise
        return lowered.compile({"xla_gpu_enable_triton_gemm": False})


def reason_of(error: str) -> str:
    """Of a compiler's many lines the one that says which memory ran out."""
    lines = [line for line in error.splitlines() if "memory" in line]
    reason = lines[0].removeprefix("RESOURCE_EXHAUSTED: ") if lines else error
    if any(kind in reason for kind in ("vmem", "smem")):
        return f"a kernel's fast memory, not the device's: {reason[:200]}"
    return reason


def lower(step: PlannedStep, partitioner: JitPartitioner) -> jax.stages.Lowered:
    """The program of a step on the largest batch, for the partitioner's devices."""
    cfg = step.cfg
    optimizer, schedule = make_optimizer(cfg.optim, cfg.steps, width=cfg.model.width)
    made = TrainingSetup(
        step.built, partitioner, None, optimizer, schedule, cfg.steps
    ).step
    state = jax.eval_shape(
        lambda params: make_state(params, optimizer, ema_decay=cfg.optim.ema_decay),
        step.params,
    )
    rows = partitioner.pad_batch_size(step.rows)
    carry = jax.eval_shape(lambda: step.carry(rows))
    batch = batch_of(cfg, rows, step.length)
    laid = [partitioner.sharded_row_shapes(shapes) for shapes in (carry, batch)]
    return partitioner.lower(made, partitioner.sharded_shapes(state), *laid)
