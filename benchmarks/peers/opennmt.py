"""The encoder-decoder of OpenNMT-py.

Pre-norm, the only variant it has; no biases of queries, keys and values.
"""

import torch
from onmt.decoders.transformer import TransformerDecoder
from onmt.encoders.transformer import TransformerEncoder
from onmt.models import NMTModel
from onmt.modules import Embeddings
from torch import nn

from benchmarks.harness.workloads import Work
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run


class Model(nn.Module):
    """Model with one table for source, target and output (`-share_embeddings`)."""

    def __init__(self, work: Work):
        super().__init__()
        table = Embeddings(
            work.width, work.vocabulary, 0, position_encoding=True, dropout=DROPOUT
        )
        sizes = (work.layers, work.width, work.heads, work.feed_forward)
        encoder = TransformerEncoder(*sizes, DROPOUT, DROPOUT, table, 0)
        decoder = TransformerDecoder(
            *sizes,
            copy_attn=False,
            self_attn_type="scaled-dot",
            dropout=DROPOUT,
            attention_dropout=DROPOUT,
            embeddings=table,
            max_relative_positions=0,
            aan_useffn=False,
            full_context_alignment=False,
            alignment_layer=-3,
            alignment_heads=0,
        )
        self.translator = NMTModel(encoder, decoder)
        self.output = nn.Linear(work.width, work.vocabulary)
        self.output.weight = table.word_lut.weight

    def forward(self, source, target, lengths):
        """Logits; the decoder leaves the last of `target` out itself."""
        hidden, _ = self.translator(source[..., None], target[..., None], lengths)
        return self.output(hidden)


class Training(TorchTraining):
    """Training step of `Model`."""

    def logits(self, batch):
        lengths = batch["mask"].sum(dim=1)
        target = torch.cat([batch["target_in"], batch["labels"][:, -1:]], dim=1)
        return self.model(batch["source"], target, lengths)


if __name__ == "__main__":
    run(lambda options: Training(options.work, Model(options.work), ("OpenNMT-py",)))
