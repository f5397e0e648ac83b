"""Encoder-decoder of Hugging Face (`MarianMTModel`): training and generation."""

import torch
from transformers import MarianConfig, MarianMTModel

from benchmarks.harness.workloads import Work, decoding_products
from benchmarks.peers.torch_subject import (
    DEVICE,
    DROPOUT,
    START,
    TorchSubject,
    TorchTraining,
    batch_of,
    finish,
    run,
)


def model_of(work: Work) -> MarianMTModel:
    """Returns a model with random parameters."""
    return MarianMTModel(
        MarianConfig(
            vocab_size=work.vocabulary,
            d_model=work.width,
            encoder_layers=work.layers,
            decoder_layers=work.layers,
            encoder_attention_heads=work.heads,
            decoder_attention_heads=work.heads,
            encoder_ffn_dim=work.feed_forward,
            decoder_ffn_dim=work.feed_forward,
            activation_function="relu",
            dropout=DROPOUT,
            attention_dropout=DROPOUT,
            activation_dropout=DROPOUT,
            scale_embedding=True,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
            max_position_embeddings=max(64, work.length + 1),
            pad_token_id=0,
            eos_token_id=1,
            forced_eos_token_id=1,
            decoder_start_token_id=START,
        )
    )


class Training(TorchTraining):
    """Training step; label smoothing is computed outside the model."""

    def logits(self, batch):
        mask = batch["mask"].long()
        return self.model(
            input_ids=batch["source"],
            attention_mask=mask,
            decoder_input_ids=batch["target_in"],
            decoder_attention_mask=mask,
            use_cache=False,
        ).logits


class Generation(TorchSubject):
    """Generation with a cache, exactly as many tokens as the source."""

    def __init__(self, work: Work, beam: int):
        products = decoding_products(work, beam)
        super().__init__(model_of(work), products, ("transformers",))
        self.model.eval()
        self.work, self.beam = work, beam
        self.batch = batch_of(work)

    @torch.no_grad()
    def step(self) -> None:
        """Generates translations of the batch."""
        most = 1 + self.work.length  # the start counts
        self.found = self.model.generate(
            input_ids=self.batch["source"],
            attention_mask=self.batch["mask"].long(),
            num_beams=self.beam,
            do_sample=False,
            min_length=most,
            max_length=most,
        )
        finish()

    def facts(self):
        """Returns the facts and the number of generated tokens."""
        return super().facts() | {"new_tokens": [self.found.shape[1] - 1]}


def make(options) -> TorchSubject:
    """Returns the system for training or generation."""
    torch.set_default_device(DEVICE)
    if options.kind == "decode":
        return Generation(options.work, options.beam)
    return Training(options.work, model_of(options.work), ("transformers",))


if __name__ == "__main__":
    run(make)
