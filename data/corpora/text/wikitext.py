"""WikiText-2 and WikiText-103 (Merity et al. 2017): articles of Wikipedia, in order."""

from data.corpora.builders import PublicText


class Wikitext2(PublicText):
    """WikiText-2 as words, rare ones already `<unk>`; titles are `= Title =` lines.

    An example is a line without the spaces around it, blank lines included: the
    published 2,088,628 training tokens give every line an `<eos>`. `source_dir` is a
    folder with the published files; None downloads them.
    """

    HOMEPAGE = "https://arxiv.org/abs/1609.07843"
    LICENSE = "CC BY-SA 3.0"
    # The authors' own copy of the archive that they first published on Amazon S3.
    URL = "https://wikitext.smerity.com/wikitext-2-v1.zip"
    MEMBER = "wikitext-2/wiki.{stem}.tokens"
    ALIASES = ("{stem}.txt",)
    CHECKSUMS = {  # noqa: RUF012
        "train": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
        "validation": (
            "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"
        ),
        "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    }


class Wikitext103(Wikitext2):
    """WikiText-103, 103 million words, in the same form.

    The published 103,227,021 training tokens give every line an `<eos>`; there are
    267,735 different words. `source_dir` is a folder with the published archive or its
    files; None downloads it (190 MB; 540 MB unpacked).
    """

    RECORD_CHECKSUMS = True
    URL = "https://wikitext.smerity.com/wikitext-103-v1.zip"
    MEMBER = "wikitext-103/wiki.{stem}.tokens"
    ALIASES = ()
    CHECKSUMS = {  # noqa: RUF012 (SHA-1 of the texts, by GluonNLP's WikiText103)
        "train": "b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        "validation": "c326ac59dc587676d58c422eb8a03e119582f92b",
        "test": "8a5befc548865cec54ed4273cf87dbbad60d1e47",
    }
