"""Corpora of TFDS, prepared without TensorFlow."""

import importlib.util
import time
import zipfile

import tensorflow_datasets as tfds

from data.corpus import open_corpus
from helpers.served_corpora import refusal


class LoopbackPairs(tfds.core.GeneratorBasedBuilder):
    """A builder like those of TFDS: an archive, configs and other split names."""

    VERSION = tfds.core.Version("1.2.3")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="en_to_de"),
        tfds.core.BuilderConfig(name="de_to_en"),
    ]
    address = ""

    def _info(self):
        features = tfds.features.Translation(["de", "en"])
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        folder = dl_manager.download_and_extract(f"{self.address}/pairs.zip")
        return {"dev": self._generate_examples(folder / "pairs.tsv")}

    def _generate_examples(self, path):
        for key, line in enumerate(path.read_text("utf-8").splitlines()):
            yield key, dict(zip(["en", "de"], line.split("\t"), strict=True))


def test_a_corpus_of_tfds_is_prepared_without_tensorflow(serve, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        archive.writestr("pairs.tsv", "A man.\tEin Mann.\nÜ\tÄ\n")
    monkeypatch.setattr(LoopbackPairs, "address", serve(tmp_path))
    corpus = open_corpus("loopback_pairs/en_to_de", tmp_path / "data")
    assert (corpus.kind, corpus.languages) == ("parallel", ("en", "de"))
    assert (corpus.version, corpus.splits) == ("1.2.3", {"dev": 2})
    assert set(corpus.read("dev")) == {("A man.", "Ein Mann."), ("Ü", "Ä")}
    corpus = open_corpus("loopback_pairs/de_to_en", tmp_path / "data")
    assert ("Ein Mann.", "A man.") in corpus.read("dev")


def test_a_corpus_of_tfds_out_of_reach_says_so_at_once(nowhere, tmp_path, monkeypatch):
    monkeypatch.setattr(LoopbackPairs, "address", nowhere)
    start = time.monotonic()
    message = refusal("loopback_pairs/en_to_de", tmp_path)
    assert time.monotonic() - start < 5
    assert "cannot download loopback_pairs/en_to_de" in message
    assert "/pairs.zip" in message
    assert "--config.data.source_dir=DIR" in message


def test_a_module_that_a_builder_of_tfds_lacks_is_named(tmp_path, monkeypatch):
    def needs_more(self, dl_manager):
        importlib.import_module("no_such_module")

    monkeypatch.setattr(LoopbackPairs, "_split_generators", needs_more)
    message = refusal("loopback_pairs/en_to_de", tmp_path)
    assert "No module named 'no_such_module'" in message
