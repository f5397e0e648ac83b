"""The pages of docs/ that are generated, and the commands and links of all pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LONGEST = 120  # columns of a line outside tables and links


def test_the_page_of_config_keys_is_up_to_date():
    command = [sys.executable, "scripts/config_docs.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_every_config_key_has_a_meaning():
    rows = (ROOT / "docs" / "configs.md").read_text().splitlines()
    assert not [row for row in rows if row.startswith("| `") and row.endswith("|  |")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    if page.name == "CHANGELOG.md":
        return  # it names files of older versions
    packages = "models|data|training|tasks|decoding|experiment|analysis|sweeps|utils"
    named = rf"`((?:{packages}|benchmarks|configs|scripts|tests)/[\w/]+\.(?:py|sh))`"
    for path in re.findall(named, page.read_text(encoding="utf8")):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_wrapped(page):
    is_code = False
    for number, line in enumerate(page.read_text(encoding="utf8").splitlines(), 1):
        is_code ^= line.startswith("```")
        if not line.startswith("|") and not is_code:
            assert len(line) <= LONGEST, f"{page.name}:{number}"
