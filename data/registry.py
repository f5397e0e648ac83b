"""The corpora of this project, and explanations of wrong corpus names."""

import difflib
import importlib

from etils import epath, epy

from utils.errors import UserError

with epy.lazy_imports():  # takes seconds, and only opening a corpus needs it
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

MAX_CHOICES = 12  # configs listed in a message about a wrong one


# From the name of a corpus to the module of its TFDS builder.
CORPORA = {
    "cldr": "data.corpora.translation.cldr",
    "iwslt14": "data.corpora.translation.iwslt14",
    "multi30k": "data.corpora.translation.multi30k",
    "parallel_text": "data.corpora.translation.parallel_text",
    "pydocs": "data.corpora.translation.parallel_text",
    "ted_hrlr": "data.corpora.translation.ted_hrlr",
    "wmt14": "data.corpora.translation.wmt14",
    "aeslc": "data.corpora.pairs.summaries",
    "dstc2": "data.corpora.pairs.dialogues",
    "hmwp": "data.corpora.pairs.word_problems",
    "mawps": "data.corpora.pairs.word_problems",
    "svamp": "data.corpora.pairs.word_problems",
    "text_pairs": "data.corpora.pairs.text_pairs",
    "enwik8": "data.corpora.text.enwik8",
    "lm1b": "data.corpora.text.lm1b",
    "novels": "data.corpora.text.plain_text",
    "pg19": "data.corpora.text.pg19",
    "plain_text": "data.corpora.text.plain_text",
    "ptb": "data.corpora.text.ptb",
    "ptb_char": "data.corpora.text.ptb",
    "python_stdlib": "data.corpora.text.python_stdlib",
    "text8": "data.corpora.text.enwik8",
    "tinyshakespeare": "data.corpora.text.tinyshakespeare",
    "wikitext103": "data.corpora.text.wikitext",
    "wikitext2": "data.corpora.text.wikitext",
    "afqmc": "data.corpora.understanding.sentence_pairs",
    "atis": "data.corpora.understanding.tagged_sentences",
    "cais_zh": "data.corpora.understanding.tagged_sentences",
    "chnsenticorp": "data.corpora.understanding.sentences",
    "classics_zh": "data.corpora.understanding.document_text",
    "cldr_fields": "data.corpora.understanding.cldr_fields",
    "cola": "data.corpora.understanding.sentences",
    "conll2003_en": "data.corpora.understanding.tagged_sentences",
    "document_text": "data.corpora.understanding.document_text",
    "finre_zh": "data.corpora.understanding.relations",
    "labeled_text": "data.corpora.understanding.labeled_text",
    "mrpc": "data.corpora.understanding.sentence_pairs",
    "ocnli": "data.corpora.understanding.sentence_pairs",
    "resume_zh": "data.corpora.understanding.tagged_sentences",
    "rte": "data.corpora.understanding.sentence_pairs",
    "semeval2010_task8": "data.corpora.understanding.relations",
    "sick": "data.corpora.understanding.sentence_pairs",
    "sst2": "data.corpora.understanding.sentences",
    "tagged_text": "data.corpora.understanding.tagged_text",
    "trec": "data.corpora.understanding.sentences",
}


def builder_class(name: str) -> type:
    """Imports and returns the TFDS builder of a corpus in `CORPORA`."""
    class_name = "".join(word.capitalize() for word in name.split("_"))
    return getattr(importlib.import_module(CORPORA[name]), class_name)


def register(name: str) -> None:
    """Makes TFDS know the builders that `name` may mean."""
    own = name.partition("/")[0].partition(":")[0]
    if own in CORPORA:
        builder_class(own)
    else:  # TFDS registers some of its own builders when these are imported
        importlib.import_module("tensorflow_datasets.translate")
        importlib.import_module("tensorflow_datasets.text")


def full_name(builder) -> str:
    """Returns the name of a builder with its config, such as `multi30k/en-de`."""
    config = builder.builder_config
    return f"{builder.name}/{config.name}" if config else builder.name


def explain_name(name: str, data_dir: epath.Path, error: Exception) -> UserError | None:
    """Returns the UserError behind an error of TFDS, or None if it is a bug."""
    try:
        dataset, options = naming.parse_builder_name_kwargs(name)
        configs = list(tfds.builder_cls(str(dataset)).builder_configs)
    except ValueError:  # unknown or malformed
        own = sorted(CORPORA)
        known = own + tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.partition("/")[0], known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        return UserError(
            f"unknown corpus {name!r}{hint} This project has {', '.join(own)}; all "
            "other names are those of the TensorFlow Datasets catalogue"
        )
    config = options.get("config")
    if config not in [None, *configs]:
        return UserError(
            f"{dataset} has no config {config!r}; {list_choices(config, configs)}"
        )
    if "File format is already set" in str(error):
        return UserError(
            f"{name} in {data_dir} is stored in a format that only TensorFlow reads: "
            "give another --config.data.dir, to prepare it there as array_record"
        )
    if "version" in options and isinstance(error, AssertionError):
        return UserError(error_line(error).rpartition('": ')[2])  # lists the versions
    return None


def list_choices(config: str, configs: list[str]) -> str:
    """Returns a phrase that lists the configs closest to a wrong one."""
    close = difflib.get_close_matches(config, configs, n=MAX_CHOICES)
    shown = configs if len(configs) <= MAX_CHOICES else close or configs[:MAX_CHOICES]
    others = len(configs) - len(shown)
    return f"it has {', '.join(shown)}" + (f" and {others} others" if others else "")


def error_line(error: Exception) -> str:
    """Returns the message of an error without line breaks."""
    return " ".join(str(error).split())
