"""A language model with a memory in x-transformers, at its fastest.

Not the paper's attention: rotary positions instead of projected distances with biases,
which let it use PyTorch's fused attention. The memory is the paper's.
"""

from torch.nn import functional
from x_transformers import Decoder, TransformerWrapper

from benchmarks.harness.workloads import Work, training_products
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run


class Training(TorchTraining):
    """Segments one after another, the memory handed on."""

    clip = 0.25

    def __init__(self, work: Work):
        model = TransformerWrapper(
            num_tokens=work.vocabulary,
            max_seq_len=work.length,
            max_mem_len=work.memory,
            emb_dropout=DROPOUT,
            tie_embedding=True,
            use_abs_pos_emb=False,
            attn_layers=Decoder(
                dim=work.width,
                depth=work.layers,
                heads=work.heads,
                attn_dim_head=work.width // work.heads,
                attn_flash=True,
                rotary_pos_emb=True,
                ff_mult=work.feed_forward // work.width,
                ff_dropout=DROPOUT,
            ),
        )
        super().__init__(work, model, ("x-transformers",))
        self.products = training_products(work, distances=False)
        self.memory = None

    def loss(self, batch):
        tokens, labels = batch["target_in"], batch["labels"]
        logits, memory = self.model(tokens, mems=self.memory, return_mems=True)
        self.memory = [one.detach() for one in memory]
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def make(options) -> Training:
    """The subject."""
    return Training(options.work)


if __name__ == "__main__":
    run(make)
