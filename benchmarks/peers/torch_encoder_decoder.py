"""Encoder-decoder in PyTorch, post-norm, with one shared embedding table.

One product projects queries, keys and values; attention is PyTorch's fused
`scaled_dot_product_attention`.
"""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness.workloads import Work
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run, sinusoids


class Attention(nn.Module):
    """Self-attention, or cross-attention to a source."""

    def __init__(self, work: Work, cross: bool):
        super().__init__()
        self.heads, width = work.heads, work.width
        self.first = nn.Linear(width, width if cross else 3 * width)
        self.source = nn.Linear(width, 2 * width) if cross else None
        self.last = nn.Linear(width, width)

    def split(self, x, parts):
        """Splits [B, T, parts D] into `parts` arrays [B, H, T, K]."""
        rows, length, _ = x.shape
        x = x.view(rows, length, parts, self.heads, -1)
        return x.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x, mask, source=None):
        if source is None:
            query, key, value = self.split(self.first(x), 3)
        else:
            (query,) = self.split(self.first(x), 1)
            key, value = self.split(self.source(source), 2)
        found = functional.scaled_dot_product_attention(
            query, key, value, mask, DROPOUT if self.training else 0.0
        )
        return self.last(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Encoder layer; decoder layer with `cross`."""

    def __init__(self, work: Work, cross: bool):
        super().__init__()
        kinds = (False, True) if cross else (False,)
        self.attentions = nn.ModuleList(Attention(work, kind) for kind in kinds)
        self.norms = nn.ModuleList(nn.LayerNorm(work.width) for _ in (*kinds, None))
        self.inner = nn.Linear(work.width, work.feed_forward)
        self.outer = nn.Linear(work.feed_forward, work.width)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x, mask, source=None, source_mask=None):
        inputs = ((mask, None), (source_mask, source))
        for attention, norm, given in zip(
            self.attentions, self.norms, inputs, strict=False
        ):
            x = norm(x + self.drop(attention(x, *given)))
        inner = self.drop(functional.relu(self.inner(x)))
        return self.norms[-1](x + self.drop(self.outer(inner)))


class Stacks(nn.Module):
    """Encoder and decoder stacks of `Layer`."""

    def __init__(self, work: Work):
        super().__init__()
        self.encoder = nn.ModuleList(Layer(work, False) for _ in range(work.layers))
        self.decoder = nn.ModuleList(Layer(work, True) for _ in range(work.layers))

    def forward(self, source, target, mask):
        length = target.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        own, other = causal & mask[:, None, None], mask[:, None, None]
        for layer in self.encoder:
            source = layer(source, other)
        for layer in self.decoder:
            target = layer(target, own, source, other)
        return target


class Model(nn.Module):
    """Model with one table for source, target and output."""

    def __init__(self, work: Work):
        super().__init__()
        self.table = nn.Embedding(work.vocabulary, work.width)
        nn.init.normal_(self.table.weight, std=work.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(work.vocabulary))
        self.stacks, self.drop = Stacks(work), nn.Dropout(DROPOUT)
        self.places = sinusoids(work.length, work.width)
        self.scale = work.width**0.5

    def embed(self, tokens):
        """Embeds tokens and adds position encodings."""
        return self.drop(self.table(tokens) * self.scale + self.places)

    def forward(self, source, target, mask):
        found = self.stacks(self.embed(source), self.embed(target), mask)
        return functional.linear(found, self.table.weight, self.bias)


if __name__ == "__main__":
    run(lambda options: TorchTraining(options.work, Model(options.work)))
