"""Batches that a comparison plans with are those of the training."""

import pytest

from analysis.compare import sizes
from analysis.compare.corpus import Corpus
from analysis.plan.step import StepSpec
from experiment.build import open_dataset
from helpers.tagged_runs import tagged_config, write_tagged
from training.profiling.flops import StepFlops

EPOCHS = 3


@pytest.mark.parametrize("model", ["rnn", "transformer"])
def test_flops_and_tokens_of_a_plan_are_those_that_the_training_logs(model, tmp_path):
    write_tagged(tmp_path / "text")
    cfg = tagged_config(tmp_path / "text", model)
    cfg.data.update(dir=str(tmp_path / "data"), buckets=2, max_length=40)
    dataset = open_dataset(cfg)
    batches = dataset.train_batches()
    cfg.steps = EPOCHS * batches.epoch_length
    corpus = Corpus(dataset)
    assert len(corpus.batch_shapes(cfg)) == 2

    step = StepSpec.from_config(cfg, dataset.tokenizers)
    params, _, _ = step.inputs_with(step.longest_batch)
    count = StepFlops(step.setup.loss, params, step.carry)
    flops = tokens = 0
    for k in range(cfg.steps):
        rows, batch = batches.num_examples(k), batches[k]
        flops += count(batch, rows)
        tokens += rows * batch["tokens"].shape[1]
    assert sizes.training_flops(cfg, corpus) == pytest.approx(flops, rel=0.01)
    assert sizes.training_tokens(cfg, corpus) == pytest.approx(tokens, rel=0.01)
    assert sizes.training_flops(cfg) > 2 * flops  # the longest batches
