"""Which corpora there are, and what may have been meant by a name that is none."""

import difflib
import importlib
from pathlib import Path

from etils import epath, epy

from data.preparation import one_line
from errors import UserError

with epy.lazy_imports():  # seconds that only opening a corpus should cost
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

CHOICES = 12  # configs shown to one who got the name wrong


def own_corpora() -> list[str]:
    """The names of the corpora this project has a builder for."""
    files = sorted((Path(__file__).parent / "builders").glob("*.py"))
    return [
        path.stem
        for path in files
        if f"class {class_name(path.stem)}(" in path.read_text("utf-8")
    ]


def class_name(name: str) -> str:
    """Of the builder of a corpus of ours."""
    return "".join(word.capitalize() for word in name.split("_"))


def register(name: str) -> None:
    """Makes TFDS know the builders that `name` may mean."""
    own = name.partition("/")[0].partition(":")[0]
    if own in own_corpora():
        importlib.import_module(f"data.builders.{own}")
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
