"""RNNsearch (Bahdanau et al. 2015) in PyTorch.

Keys are projected once per sentence; the output layer is one product after the loop.
Source, target and output have a table each.
"""

import torch
from torch import nn

from benchmarks.harness.workloads import Work
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run


class Model(nn.Module):
    """Bahdanau et al. (2015) with the defaults of configs/base.py."""

    def __init__(self, work: Work):
        super().__init__()
        width = work.width
        self.source = nn.Embedding(work.vocabulary, width)
        self.target = nn.Embedding(work.vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.first = nn.Linear(width, width)
        self.key = nn.Linear(2 * width, width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(3 * width, width)
        self.readout = nn.Linear(4 * width, width)
        self.output = nn.Linear(width, work.vocabulary)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, source, target, mask):
        values, last = self.encoder(self.drop(self.source(source)))
        keys = self.key(values)
        state = torch.tanh(self.first(last[1]))
        embedded = self.drop(self.target(target))
        states, contexts = [], []
        for token in embedded.unbind(1):
            hidden = torch.tanh(self.query(state)[:, None] + keys)
            scores = self.score(hidden)[..., 0].masked_fill(~mask, -torch.inf)
            context = (scores.softmax(-1)[:, None] @ values)[:, 0]
            state = self.cell(torch.cat([token, context], dim=-1), state)
            states.append(state)
            contexts.append(context)
        top = self.drop(torch.stack(states, 1))
        seen = [top, embedded, torch.stack(contexts, 1)]
        return self.output(self.drop(torch.tanh(self.readout(torch.cat(seen, -1)))))


if __name__ == "__main__":
    run(lambda options: TorchTraining(options.work, Model(options.work)))
