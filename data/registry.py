"""Which corpora there are, and what may have been meant by a name that is none."""

import difflib
import importlib

from etils import epath, epy

from data.prepare import one_line
from utils.errors import UserError

with epy.lazy_imports():  # seconds that only opening a corpus should cost
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

CHOICES = 12  # configs shown to one who got the name wrong


# From the name of a corpus to the module of its TFDS builder.
CORPORA = {
    "cldr": "data.corpora.translation.cldr",
    "iwslt14": "data.corpora.translation.iwslt14",
    "multi30k": "data.corpora.translation.multi30k",
    "parallel_text": "data.corpora.translation.parallel_text",
    "pydocs": "data.corpora.translation.pydocs",
    "ted_hrlr": "data.corpora.translation.ted_hrlr",
    "wmt14": "data.corpora.translation.wmt14",
    "enwik8": "data.corpora.text.enwik8",
    "lm1b": "data.corpora.text.lm1b",
    "novels": "data.corpora.text.novels",
    "pg19": "data.corpora.text.pg19",
    "plain_text": "data.corpora.text.plain_text",
    "ptb": "data.corpora.text.ptb",
    "ptb_char": "data.corpora.text.ptb_char",
    "python_stdlib": "data.corpora.text.python_stdlib",
    "text8": "data.corpora.text.text8",
    "wikitext103": "data.corpora.text.wikitext103",
    "wikitext2": "data.corpora.text.wikitext2",
}


def own_corpora() -> list[str]:
    """Returns the names of the corpora that this project has a builder for."""
    return sorted(CORPORA)


def builder_class(name: str) -> type:
    """Imports and returns the TFDS builder of a corpus in `CORPORA`."""
    return getattr(importlib.import_module(CORPORA[name]), class_name(name))


def class_name(name: str) -> str:
    """Of the builder of a corpus of ours."""
    return "".join(word.capitalize() for word in name.split("_"))


def register(name: str) -> None:
    """Makes TFDS know the builders that `name` may mean."""
    own = name.partition("/")[0].partition(":")[0]
    if own in CORPORA:
        builder_class(own)
    else:  # some of TFDS's own are found only once these are imported
        importlib.import_module("tensorflow_datasets.translate")
        importlib.import_module("tensorflow_datasets.text")


def explain_name(name: str, data_dir: epath.Path, error: Exception) -> UserError | None:
    """The UserError behind TFDS's `error`, or None if the user is not to blame."""
    try:
        dataset, options = naming.parse_builder_name_kwargs(name)
        configs = list(tfds.builder_cls(str(dataset)).builder_configs)
    except ValueError:  # no such name, or none that could be
        return UserError(_unknown_corpus(name))
    config = options.get("config")
    if config not in [None, *configs]:
        return UserError(
            f"{dataset} has no config {config!r}; {choices(config, configs)}"
        )
    if "File format is already set" in str(error):
        return UserError(
            f"{name} in {data_dir} is stored in a format that only TensorFlow reads: "
            "give another --config.data.dir, to prepare it there as array_record"
        )
    if "version" in options and isinstance(error, AssertionError):
        return UserError(one_line(error).rpartition('": ')[2])  # lists the versions
    return None


def _unknown_corpus(name: str) -> str:
    own = own_corpora()
    known = own + tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(name.partition("/")[0], known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return (
        f"unknown corpus {name!r}{hint} This project has {', '.join(own)}; the other "
        "names are those of TensorFlow Datasets' catalogue"
    )


def choices(config: str, configs: list[str]) -> str:
    """The configs that may have been meant, as a phrase."""
    close = difflib.get_close_matches(config, configs, n=CHOICES)
    shown = configs if len(configs) <= CHOICES else close or configs[:CHOICES]
    others = len(configs) - len(shown)
    return f"it has {', '.join(shown)}" + (f" and {others} others" if others else "")
