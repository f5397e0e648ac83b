"""Multi30k (Elliott et al. 2016): image captions in four languages, 29k sentences."""

import itertools

import tensorflow_datasets as tfds

from data.builders import sources
from errors import UserError

ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
LANGUAGES = ("en", "de", "fr", "cs")
SPLITS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}

# sha256 of the unpacked files
CHECKSUMS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "train.cs": "2be68b38c8d586ff4f54eb13cc6e1baaaa053695b3f070d3038303a47f2268da",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "val.cs": "d53827e469b0a1ca8d57e9e26b2b64c4bc4b33f5479c7b03ae87ae5c882c3e33",
    "test_2016_flickr.en": (
        "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"
    ),
    "test_2016_flickr.de": (
        "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"
    ),
    "test_2016_flickr.fr": (
        "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6"
    ),
    "test_2016_flickr.cs": (
        "45adb85f688de8407fddcbe1b36dca15d12aab868149b337e2576f2d6d2ff8d8"
    ),
}


class Multi30k(tfds.core.GeneratorBasedBuilder):
    """Multi30k, task 1, raw: every direction between two of its languages.

    Attributes:
      source_dir: folder with the published files; None downloads them.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=f"{source}-{target}")
        for source, target in itertools.permutations(LANGUAGES, 2)
    ]
    source_dir = None

    @property
    def languages(self) -> list[str]:
        """Source and target."""
        return self.builder_config.name.split("-")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.Translation(self.languages),
            homepage="https://github.com/multi30k/dataset",
            license="Non-commercial research, as Flickr30k",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        names = [
            f"{stem}.{language}"
            for stem in SPLITS.values()
            for language in self.languages
        ]
        files = {
            name: sources.Source(f"{ADDRESS}/{name}.gz", CHECKSUMS[name], (name,))
            for name in names
        }
        texts = sources.read_texts(files, self.source_dir)
        lines = {name: sources.split_lines(text) for name, text in texts.items()}
        return {split: self._pairs(lines, stem) for split, stem in SPLITS.items()}

    def _pairs(self, lines, stem):
        names = [f"{stem}.{language}" for language in self.languages]
        first, second = (len(lines[name]) for name in names)
        if first != second:
            raise UserError(
                f"{names[0]} has {first} lines and {names[1]} has {second}: "
                "line n of one has to translate line n of the other"
            )
        return self._generate_examples([lines[name] for name in names])

    def _generate_examples(self, columns):
        for key, pair in enumerate(zip(*columns, strict=True)):
            yield key, dict(zip(self.languages, pair, strict=True))
