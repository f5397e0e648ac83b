"""A language model with memory in x-transformers, in its fastest configuration.

Rotary instead of relative positions with biases, which allows PyTorch's fused
attention. The memory is that of the paper.
"""

from torch.nn import functional
from x_transformers import Decoder, TransformerWrapper

from benchmarks.harness.workloads import Work, training_products
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run


class Training(TorchTraining):
    """Training step over consecutive segments with memory."""

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
        self.memory = [layer.detach() for layer in memory]
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


if __name__ == "__main__":
    run(lambda options: Training(options.work))
