"""Text-to-text task: summaries, responses and equations, from columns of a corpus.

It is translation between two columns, with the metrics of `cfg.eval.metrics` and their
intervals, any number of references, and baselines in all metrics.
"""

from data.pairs import open_pairs_dataset
from tasks import translation
from tasks.baselines import BASELINES


class Task(translation.Task):
    """Training, evaluation and inference of models of text pairs."""

    baseline_names = BASELINES

    @classmethod
    def open_dataset(cls, cfg, tokenizers=None):
        return open_pairs_dataset(cfg.data, tokenizers)
