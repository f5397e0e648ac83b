"""Base classes of the measured systems in PyTorch."""

import argparse
import os
import platform
from collections.abc import Callable
from importlib import metadata

import torch
from torch.nn.functional import cross_entropy

from benchmarks.harness.protocol import serve
from benchmarks.harness.workloads import (
    WORKS,
    Product,
    Work,
    flops,
    select,
    training_products,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPECIAL = 4  # special token ids, which random data leaves out
START = 3
DROPOUT, SMOOTHING = 0.1, 0.1


def parse_options() -> argparse.Namespace:
    """Parses the flags of all systems."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", nargs="?", default="")
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    options.work = select(WORKS, options.work, options.tiny)
    return options


def finish() -> None:
    """Waits until the device is idle."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


class TorchSubject:
    """Measured system with a PyTorch model.

    Attributes:
      packages: packages whose versions are reported.
      dtype: dtype of computations; parameters are float32.
    """

    dtype = "float32"

    def __init__(
        self, model: torch.nn.Module, products: list[Product], packages: tuple = ()
    ):
        self.model, self.products = model.to(DEVICE), products
        self.packages = ("torch", *packages)

    def multiplier(self, product: Product, times: int) -> Callable[[], None]:
        """Returns a call that computes a product; see `Subject.multiplier`."""
        batch, rows, inner, columns, _ = product
        options = {"device": DEVICE, "dtype": getattr(torch, self.dtype)}
        left = torch.ones(batch, rows, inner, **options)
        right = torch.ones(batch, inner, columns, **options)
        if batch == 1:
            left, right = left[0], right[0]

        @torch.no_grad()
        def call():
            for _ in range(times):
                left @ right
            finish()

        return call

    def facts(self) -> dict:
        """Returns device, versions, parameters and FLOPs."""
        versions = {name: metadata.version(name) for name in self.packages}
        parameters = {id(p): p.numel() for p in self.model.parameters()}
        found = {
            "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), **versions},
            "parameters": sum(parameters.values()),
            "flops": flops(self.products),
        }
        if DEVICE == "cuda":
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
        return found


class TorchTraining(TorchSubject):
    """Training step; a subclass may define `logits` or `loss`.

    Adam is PyTorch's fused implementation, its fastest; gradients are clipped if the
    workload needs it.
    """

    clip = 0.0

    def __init__(self, work: Work, model: torch.nn.Module, packages: tuple = ()):
        super().__init__(model, training_products(work), packages)
        self.work = work
        self.model.train()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True
        )
        self.batches = [batch_of(work) for _ in range(4)]
        self.number = 0

    def logits(self, batch: dict) -> torch.Tensor:
        """Returns the logits [B, T, V] of a translation."""
        return self.model(batch["source"], batch["target_in"], batch["mask"])

    def loss(self, batch: dict) -> torch.Tensor:
        """Returns the mean loss over the tokens of a batch, with label smoothing."""
        logits, labels = self.logits(batch).flatten(0, 1), batch["labels"].flatten()
        return cross_entropy(logits, labels, label_smoothing=SMOOTHING)

    def step(self) -> None:
        """Runs forward pass, backward pass and update."""
        self.optimizer.zero_grad(set_to_none=True)
        half = self.dtype == "bfloat16"
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            loss = self.loss(self.batches[self.number % len(self.batches)])
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        finish()
        self.number += 1


def random_tokens(work: Work) -> torch.Tensor:
    """Returns random token ids [B, T]."""
    shape = (work.rows, work.length)
    return torch.randint(SPECIAL, work.vocabulary, shape, device=DEVICE)


def batch_of(work: Work) -> dict[str, torch.Tensor]:
    """Returns a batch of random sentences without padding."""
    labels = random_tokens(work)
    start = torch.full_like(labels[:, :1], START)
    return {
        "source": random_tokens(work),
        "mask": torch.ones_like(labels, dtype=torch.bool),
        "target_in": torch.cat([start, labels[:, :-1]], dim=1),
        "labels": labels,
    }


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Returns the position encodings of Vaswani et al. (2017, section 3.5): [T, D]."""
    places = torch.arange(length)[:, None]
    rates = 10000 ** (-torch.arange(0, width, 2) / width)
    angles = places * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(DEVICE)


def run(make: Callable[[argparse.Namespace], TorchSubject]) -> None:
    """Parses the flags and serves the measured system."""
    options = parse_options()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    torch.manual_seed(0)

    def make_subject():
        subject = make(options)
        subject.dtype = options.dtype
        return subject

    serve(make_subject)
