"""Corpora by name: prepared once through TFDS, then read in their stored order.

A name is one of `registry.CORPORA` or any that TFDS knows. Errors that a user can fix
are UserErrors.
"""

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from etils import epath, epy

from data import registry
from data.storage import download_all, ensure_local, upload
from utils.errors import UserError

with epy.lazy_imports():  # takes seconds, and only opening a corpus needs it
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

PREPARE = "data.prepare"  # imported only to prepare a corpus
TRAIN = "train"  # the split that every corpus has
DOCUMENT = "doc"  # the field that names an example's document
# Examples are read in blocks, three times as fast as one by one.
BLOCK_EXAMPLES = 1000  # at most
BLOCK_BYTES = 2**22  # about
NUM_PROBES = 16  # examples that estimate the size of the others
NUM_RUNS = 1000  # runs of consecutive examples in a sample


@dataclass(frozen=True)
class Corpus:
    """A corpus prepared on disk.

    Attributes:
      name: name with its config, such as "multi30k/en-de".
      version: version of the builder that prepared it.
      kind: "parallel", "text", or "table" of named columns.
      languages: languages of a parallel corpus, source first.
      splits: number of examples of each split.
      fields: fields of a stored example, in the order of `read`.
    """

    name: str
    version: str
    kind: str
    languages: tuple[str, ...]
    splits: dict[str, int]
    fields: tuple[str, ...] = field(repr=False)
    builder: Any = field(repr=False, compare=False)

    def reversed(self) -> "Corpus":
        """Swaps source and target. Raises UserError for a text."""
        if self.kind != "parallel":
            raise UserError(
                f"data.reverse=True needs a parallel corpus, and {self.name} is a text"
            )
        return replace(self, languages=self.languages[::-1], fields=self.fields[::-1])

    @property
    def targets(self) -> tuple[str, ...]:
        """Languages that are translated into."""
        return self.languages[-1:]

    def column(self, split: str, name: str) -> list[str] | None:
        """Returns the texts of any column, or None if the corpus has none so named."""
        if name not in self.builder.info.features:
            return None
        return [text for (text,) in self._read_fields(split, (name,))]

    def documents(self, split: str) -> list[str] | None:
        """Returns the document name of each example, or None if none is recorded."""
        names = self.column(split, DOCUMENT) if self.kind == "parallel" else None
        return names if any(names or ()) else None

    def read(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Yields examples `start` to `stop`, as (source, target) or (text,)."""
        return self._read_fields(split, self.fields, start, stop)

    def check_split(self, split: str) -> None:
        """Raises UserError for a split that the corpus lacks."""
        if split not in self.splits:
            raise UserError(
                f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}"
            )

    def _read_fields(self, split: str, fields, start: int = 0, stop: int | None = None):
        self.check_split(split)
        source = self.builder.as_data_source(split)
        return _read_examples(source, fields, range(len(source))[start:stop])


def _read_examples(source, fields, indices: range) -> Iterator[tuple[str, ...]]:
    start, count = 0, 1
    while start < len(indices):
        size = 0
        for example in source.__getitems__(list(indices[start : start + count])):
            size += sum(len(example[name]) for name in fields)
            texts = (example[name] for name in fields)
            yield tuple(t if isinstance(t, str) else t.decode() for t in texts)
        start += count
        # About BLOCK_BYTES, growing by steps, since sizes of examples vary.
        by_size = BLOCK_BYTES * count // max(size, 1)
        count = max(1, min(BLOCK_EXAMPLES, 32 * count, by_size))


def mean_size(corpus: Corpus, split: str) -> float:
    """Estimates the mean number of characters of an example, at least 1."""
    last = corpus.splits[split] - 1
    indices = np.unique(np.linspace(0, max(last, 0), NUM_PROBES).astype(int)).tolist()
    probes = [e for i in indices for e in corpus.read(split, i, i + 1)]
    return max(1.0, sum(len(text) for e in probes for text in e) / max(len(probes), 1))


def sample_evenly(
    corpus: Corpus, split: str, max_characters: int
) -> Iterator[tuple[str, ...]]:
    """Yields evenly spaced runs of examples, about `max_characters` in all; 0: all."""
    count = corpus.splits[split]
    wanted = int(max_characters / mean_size(corpus, split)) if max_characters else count
    if wanted >= count:
        yield from corpus.read(split)
        return
    runs = max(1, min(NUM_RUNS, wanted))
    for start in np.linspace(0, count, runs, endpoint=False).astype(int).tolist():
        yield from corpus.read(split, start, start + max(1, wanted // runs))


def open_corpus(
    name: str,
    data_dir: epath.PathLike,
    source_dir: str | None = None,
    *,
    tables: bool = False,
) -> Corpus:
    """Opens a corpus, after preparing it if needed.

    Args:
      data_dir: TFDS's folder of prepared data.
      source_dir: folder with the published files, instead of a download; not used
        once the corpus is prepared. Corpora of a user's own files follow the content of
        this folder; without it, they are opened as last prepared.
      tables: whether the corpus may be a table of any columns.

    Raises:
      UserError: the name is unknown, or the corpus cannot be prepared or read.
    """
    data_dir = epath.Path(data_dir).expanduser()
    with _quiet_tfds():
        with _explain_access_errors(name, data_dir):
            config = _local_files_config(name, data_dir, source_dir)
        builder = _make_builder(name, data_dir, config)
        languages = _find_languages(builder)
        text = () if languages else _find_text_field(builder)
        if not (languages or text or tables):
            raise UserError(
                f"{registry.full_name(builder)} is neither a parallel corpus nor a "
                f"text: its examples have {', '.join(builder.info.features)}, which "
                "task='classification' and others may read"
            )
        prepared = Path(builder.data_path)
        if not builder.is_prepared():
            if prepared.exists() or not ensure_local(prepared):
                importlib.import_module(PREPARE).prepare(builder, source_dir)
                upload(prepared)
            builder = _make_builder(name, data_dir, config)
        check_complete(builder)
    return Corpus(
        name=registry.full_name(builder),
        version=str(builder.version),
        kind="parallel" if languages else "text" if text else "table",
        languages=languages,
        splits={name: s.num_examples for name, s in builder.info.splits.items()},
        fields=languages or text or tuple(builder.info.features),
        builder=builder,
    )


def check_complete(builder) -> None:
    """Raises UserError unless every shard on disk has the recorded number of records.

    A shard that is cut short has no end mark, and then closing its reader fails.
    """
    for split in builder.info.splits.values():
        for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
            reader = array_record_module.ArrayRecordReader(os.fspath(path))
            num_records = reader.num_records()
            with contextlib.suppress(RuntimeError):
                reader.close()
                if num_records == count:
                    continue
            raise UserError(
                f"{path} does not hold its {count} records: remove "
                f"{builder.data_path}, to have the corpus prepared again"
            )


def _local_files_config(name: str, data_dir: epath.Path, source_dir: str | None):
    """Returns the TFDS config of a corpus of the user's own files, else None."""
    own, _, config = name.partition("/")
    if own not in registry.CORPORA:
        return None
    builder = registry.builder_class(own)
    if not hasattr(builder, "find_config"):
        return None
    if source_dir is None or not Path(source_dir).expanduser().exists():
        download_all(Path(data_dir) / own, str(builder.VERSION))
    return builder.find_config(config, data_dir, source_dir)


def _make_builder(name: str, data_dir: epath.Path, config=None):
    """Returns the TFDS builder of a corpus; `config` replaces the one in `name`."""
    registry.register(name)
    options = {"data_dir": data_dir, "file_format": "array_record"}
    with _explain_access_errors(name, data_dir):
        if config is not None:
            return tfds.builder(name.partition("/")[0], config=config, **options)
        try:
            builder = tfds.builder(name, **options)
        except (ValueError, AssertionError) as error:
            explained = registry.explain_name(name, data_dir, error)
            if explained is None:
                raise
            raise explained from error
    configs = [] if "/" in name else list(builder.builder_configs)
    if len(configs) > 1 and not builder.DEFAULT_BUILDER_CONFIG_NAME:
        raise UserError(
            f"{name} needs a config after a slash; {registry.list_choices('', configs)}"
        )
    return builder


@contextlib.contextmanager
def _explain_access_errors(name: str, data_dir: epath.Path) -> Iterator[None]:
    """Turns errors of reading a folder into UserErrors."""
    try:
        yield
    except (ImportError, OSError) as error:
        reason = registry.error_line(error.__cause__ or error)
        raise UserError(f"cannot open {name} in {data_dir}: {reason}") from error


def _find_languages(builder) -> tuple[str, ...]:
    """Returns the languages of a parallel corpus, source first; else ().

    They are the builder's attribute `languages`, or those of TFDS's Translation
    feature, in the order of the config's name.
    """
    if declared := tuple(getattr(builder, "languages", ())):
        return declared
    if not isinstance(builder.info.features, tfds.features.Translation):
        return ()
    config = builder.builder_config.name if builder.builder_config else ""
    return tuple(sorted(builder.info.features.languages, key=config.find))


def _find_text_field(builder) -> tuple[str, ...]:
    """Returns the field of a text; () for a table of columns."""
    features = builder.info.features
    texts = [n for n in features if isinstance(features[n], tfds.features.Text)]
    if getattr(builder, "kind", None) == "table":
        return ()
    if "text" in texts or len(texts) == 1:
        return ("text",) if "text" in texts else (texts[0],)
    return ()


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Disables TFDS's progress bars, log and prints; its exceptions remain."""
    tfds.disable_progress_bar()
    no_log = mock.patch.object(logging.getLogger("absl"), "disabled", True)
    with no_log, contextlib.redirect_stdout(io.StringIO()):
        yield
