"""Opens a corpus by name: prepared through TFDS once, then read in its stored order.

A name is a corpus of ours (`data/builders/<name>.py` defines a class of that name) or
any that TFDS knows. Every error a user can mend is a UserError.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etils import epath, epy

from data.prepare import check_whole, full_name, one_line, prepare
from data.registry import builder_class, choices, explain_name, own_corpora, register
from data.remote import bring_all, is_there, send
from utils.errors import UserError

with epy.lazy_imports():  # seconds that only opening a corpus should cost
    import tensorflow_datasets as tfds

BLOCK = 1000  # examples read at once: three times as fast as one by one
BLOCK_SIZE = 2**22  # bytes read at once
TRAIN = "train"  # the split that every corpus has
DOCUMENT = "doc"  # the field that names an example's document


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus.

    Attributes:
      name: with its config, "multi30k/en-de".
      version: of the builder that prepared it.
      kind: "parallel" or "text".
      languages: of a parallel corpus, source first.
      splits: number of examples of each.
      fields: of a stored example, in the order `read` gives them.
      builder: TFDS's, which reads the examples.
    """

    name: str
    version: str
    kind: str
    languages: tuple[str, ...]
    splits: dict[str, int]
    fields: tuple[str, ...] = field(repr=False)
    builder: Any = field(repr=False, compare=False)

    def reversed(self) -> "Corpus":
        """From the second language to the first. Raises UserError for a text."""
        if self.kind != "parallel":
            raise UserError(f"data.reverse=True: {self.name} has no direction")
        return replace(self, languages=self.languages[::-1], fields=self.fields[::-1])

    @property
    def targets(self) -> tuple[str, ...]:
        """The languages that are translated into."""
        return self.languages[-1:]

    @property
    def has_documents(self) -> bool:
        """Whether a parallel corpus knows of which document an example is."""
        return self.kind == "parallel" and DOCUMENT in self.builder.info.features

    def documents(self, split: str) -> list[str] | None:
        """The document of each example in stored order; None if none is recorded."""
        if not self.has_documents:
            return None
        found = [document for (document,) in self._rows(split, (DOCUMENT,))]
        return found if any(found) else None

    def read(
        self, split: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[str, ...]]:
        """Examples of `split` in stored order: (source, target) or (text,).

        Args:
          start, stop: those from number `start` to before `stop`; None: to the end.
        """
        return self._rows(split, self.fields, start, stop)

    def _rows(self, split, fields, start=0, stop=None) -> Iterator[tuple[str, ...]]:
        if split not in self.splits:
            raise UserError(
                f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}"
            )
        source = self.builder.as_data_source(split)
        return _examples(source, fields, range(len(source))[start:stop])


def _examples(source, fields, numbers: range) -> Iterator[tuple[str, ...]]:
    start, count = 0, 1
    while start < len(numbers):
        size = 0
        for example in source.__getitems__(list(numbers[start : start + count])):
            size += sum(len(example[name]) for name in fields)
            yield tuple(_decode(example[name]) for name in fields)
        start += count
        # So many that they are about BLOCK_SIZE, and not suddenly many more.
        count = max(1, min(BLOCK, 32 * count, BLOCK_SIZE * count // max(size, 1)))


def open_corpus(
    name: str, data_dir: epath.PathLike, source_dir: str | None = None
) -> Corpus:
    """The corpus `name` of `data_dir`, prepared there first if it is not yet.

    Args:
      name: "multi30k/en-de", "ptb", or a name of TFDS.
      data_dir: TFDS's folder of prepared data.
      source_dir: folder with the published files, instead of downloading them. Not
        looked at once the corpus is prepared. Corpora of a user's own files are those
        of this folder as it is now; without it, or if it is gone, as it was prepared.

    Raises UserError.
    """
    data_dir = epath.Path(data_dir).expanduser()
    with _quiet_tfds():
        with _reached(name, data_dir):
            config = _own_config(name, data_dir, source_dir)
        builder = _build(name, data_dir, config)
        languages = _languages(builder)
        fields = languages or (_text_field(builder),)
        prepared = Path(builder.data_path)
        if not builder.is_prepared():
            if prepared.exists() or not is_there(prepared):
                prepare(builder, source_dir)
                send(prepared)
            builder = _build(name, data_dir, config)
        check_whole(builder)
    return Corpus(
        name=full_name(builder),
        version=str(builder.version),
        kind="parallel" if languages else "text",
        languages=languages,
        splits={
            split: info.num_examples for split, info in builder.info.splits.items()
        },
        fields=fields,
        builder=builder,
    )


def _own_config(name: str, data_dir: epath.Path, source_dir: str | None):
    """The TFDS config of a corpus of the user's own files, None of any other corpus."""
    own, _, config = name.partition("/")
    if own not in own_corpora():
        return None
    builder = builder_class(own)
    if not hasattr(builder, "find_config"):
        return None
    if source_dir is None or not Path(source_dir).expanduser().exists():
        bring_all(Path(data_dir) / own, str(builder.VERSION))
    return builder.find_config(config, data_dir, source_dir)


def _build(name: str, data_dir: epath.Path, config=None):
    """The TFDS builder of `name`: reads what is prepared, or can prepare it.

    Args:
      config: made for this corpus, instead of one that its name names.
    """
    register(name)
    options = {"data_dir": data_dir, "file_format": "array_record"}
    with _reached(name, data_dir):
        if config is not None:
            return tfds.builder(name.partition("/")[0], config=config, **options)
        builder = _build_named(name, options)
    configs = [] if "/" in name else list(builder.builder_configs)
    if len(configs) > 1 and not builder.DEFAULT_BUILDER_CONFIG_NAME:
        raise UserError(f"{name} needs a config behind a slash; {choices('', configs)}")
    return builder


def _build_named(name: str, options: dict):
    """TFDS's builder of `name`. Raises UserError for a name that cannot be."""
    try:
        return tfds.builder(name, **options)
    except (ValueError, AssertionError) as error:
        explained = explain_name(name, options["data_dir"], error)
        if explained is None:
            raise
        raise explained from error


@contextlib.contextmanager
def _reached(name: str, data_dir: epath.Path) -> Iterator[None]:
    """Raises UserError where a folder cannot be read."""
    try:
        yield
    except (ImportError, OSError) as error:
        reason = one_line(error.__cause__ or error)
        raise UserError(f"cannot open {name} in {data_dir}: {reason}") from error


def _languages(builder) -> tuple[str, ...]:
    """The languages of a parallel corpus, source first.

    Those a builder declares as `languages`, or TFDS's in the order its config has.
    """
    declared = tuple(getattr(builder, "languages", ()))
    if declared:
        return declared
    if not isinstance(builder.info.features, tfds.features.Translation):
        return ()
    config = builder.builder_config.name if builder.builder_config else ""
    return tuple(sorted(builder.info.features.languages, key=config.find))


def _text_field(builder) -> str:
    features = builder.info.features
    texts = [
        name for name in features if isinstance(features[name], tfds.features.Text)
    ]
    if "text" in texts or len(texts) == 1:
        return "text" if "text" in texts else texts[0]
    raise UserError(
        f"{full_name(builder)} is neither a parallel corpus nor a text: its examples "
        f"have {', '.join(features)}"
    )


def _decode(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode()


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """No progress bars, and neither log nor print of TFDS: what fails, raises."""
    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
