"""What the page about adding an operation quotes is in the files that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "adding_an_operation.md").read_text()
QUOTES = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("file", "text"), QUOTES)
def test_quotes(file, text):
    assert text in (ROOT / file).read_text()


def test_every_file_of_the_folder_is_explained():
    files = {path.name for path in (ROOT / "sw/vitrify/ops/mix").glob("*.py")}
    assert {name for name in files if f"`{name}`" in PAGE or f"`{name}:" in PAGE} == files
    assert len(QUOTES) == PAGE.count("```python")
