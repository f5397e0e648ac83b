"""The original Transformer-XL (Dai et al. 2019) in Hugging Face.

`TransfoXLLMHeadModel` is the authors' code. It also computes queries of the memory and
gradients that are not needed; the loss leaves out the first token of a segment.
"""

from transformers import TransfoXLConfig, TransfoXLLMHeadModel

from benchmarks.harness.workloads import Product, Work, training_products, transposed
from benchmarks.peers.torch_subject import DROPOUT, TorchTraining, run


def products_of(work: Work) -> list[Product]:
    """Returns our products and its additional products of the memory."""
    whole = Product(1, work.rows * work.memory, work.width, work.width, work.layers)
    keys_and_values = whole._replace(count=2 * work.layers)
    to_memory, _ = transposed(keys_and_values)
    return [*training_products(work), whole, *transposed(whole), to_memory]


def model_of(work: Work) -> TransfoXLLMHeadModel:
    """Returns a model with random parameters and a full softmax."""
    return TransfoXLLMHeadModel(
        TransfoXLConfig(
            vocab_size=work.vocabulary,
            cutoffs=[],
            d_model=work.width,
            d_embed=work.width,
            n_head=work.heads,
            d_head=work.width // work.heads,
            d_inner=work.feed_forward,
            div_val=1,
            n_layer=work.layers,
            mem_len=work.memory,
            clamp_len=-1,
            same_length=False,
            proj_share_all_but_first=True,
            sample_softmax=-1,
            dropout=DROPOUT,
            dropatt=0.0,
            untie_r=False,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


class Training(TorchTraining):
    """Training step over consecutive segments with memory."""

    clip = 0.25

    def __init__(self, work: Work):
        super().__init__(work, model_of(work), ("transformers",))
        self.products = products_of(work)
        self.memory = None

    def loss(self, batch):
        found = self.model(batch["labels"], mems=self.memory, labels=batch["labels"])
        self.memory = found.mems
        return found.losses.mean()


if __name__ == "__main__":
    run(lambda options: Training(options.work))
