"""Language codes of several standards name one language."""

import pytest

from utils.languages import primary_language


@pytest.mark.parametrize(
    ("language", "codes"),
    [
        ("zh", "zh zh_CN zh_TW zh-Hans zh-Hant-HK zh_CN.UTF-8 ZH cmn zho chi"),
        ("ja", "ja ja_JP jpn JA-jp"),
        ("ko", "ko kor ko_KR"),
        ("de", "de deu ger de_AT de_DE@euro"),
        ("he", "he iw heb"),
        ("yue", "yue yue_Hant"),
        ("my", "my mya bur"),
    ],
)
def test_codes_of_all_standards_name_one_language(language, codes):
    assert {code: primary_language(code) for code in codes.split()} == dict.fromkeys(
        codes.split(), language
    )


@pytest.mark.parametrize("code", ["", "xx", "qqq", "german", "12", "_", "a b"])
def test_an_unknown_code_names_none(code):
    assert primary_language(code) is None
