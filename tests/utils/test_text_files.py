"""Files that users hand in are read whatever editor wrote them, or refused."""

import pytest

from utils.errors import UserError
from utils.text_files import read_lines

CASES = {
    "byte order mark": (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
    "line ends of Windows": (b"a\r\nb\r\n", ["a", "b"]),
    "no last line end": (b"a\nb", ["a", "b"]),
    "blank ends": (b"a\n\nb\n\r\n\n", ["a", "", "b"]),
    "other separators": ("a\u2028b\x85\n".encode(), ["a\u2028b\x85"]),
    "Latin-1": (b"a\n\xe9\n", "--words=.*file is not UTF-8 in line 2 .*give a copy"),
    "UTF-16": ("a\n".encode("utf-16"), "not UTF-8 in line 1"),
    "nothing": (b"", "--words=.*file is empty"),
    "blank lines": (b"\xef\xbb\xbf\n \r\n", "--words=.*file is empty"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_or_refused(name, tmp_path):
    content, expected = CASES[name]
    (tmp_path / "file").write_bytes(content)
    if isinstance(expected, list):
        assert read_lines("--words", tmp_path / "file") == expected
        return
    with pytest.raises(UserError, match=expected):
        read_lines("--words", str(tmp_path / "file"))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--words=.* cannot be read: Is a directory"):
        read_lines("--words", tmp_path)
    with pytest.raises(UserError, match=r"none cannot be read: No such file"):
        read_lines("--words", tmp_path / "none")
