"""The project is written in plain modern English: turns that a reader would have to read twice are nowhere in it."""

import json
import re

import pytest

from dynlib.files import ROOT

# What was found here once, or is of its kind. Each is the beginning of a word or of several.
BANNED = """
albeit; amongst; as it were; at hand; aught; but for; by dint; come of; comes of; for want of; hang on; hangs on; held against;
hence; hereby; heretofore; hither; hung on; in lieu; in order to; inasmuch; insofar; it should be noted; leverag; lest; note that;
nothing but; nought; obviously; of course; rightly; said of; save for; says of; simply; speak of; speaks of; thence; thereby;
therein; thereof; thither; thus; upon; utilis; utiliz; whence; whereby; wherein; whereof; whilst; withal; withstand; wrongly
"""
TURN = re.compile(
    r"\b(?:" + "|".join(turn.strip().replace(" ", r"\s+(?:[#>*]\s*)?") for turn in BANNED.split(";")) + ")", re.IGNORECASE
)
READ = ("*.md", "*.sh", "*.yml", "docs/**/*.md", "docs/**/*.js", "notebooks/*.ipynb", "figures/*.md", "workflow/**/*.yaml")
READ += (
    "workflow/Snakefile",
    *(f"{folder}/**/*.{kind}" for folder in ("benchmarks", "dynlib", "tests", "workflow") for kind in ("md", "py")),
)
FILES = sorted({path for pattern in READ for path in ROOT.glob(pattern) if path.name != "test_language.py"})


def written(path):
    """What a file says; of a notebook its cells and what they have printed, without pictures."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = [line for output in outputs for line in output.get("text", [])]
    return "\n".join(["".join(cell["source"]) for cell in cells] + printed)


def test_files_are_found():
    assert {"README.md", "claims.py", "Snakefile", "lesson.ipynb", "run_all.sh", "published.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_turn(path):
    text = written(path)
    found = [(match.group(), text[: match.start()].count("\n") + 1) for match in TURN.finditer(text)]
    assert not found


@pytest.mark.parametrize("text", ["it Hangs on the", "says  of it", "# for want\n# of a test", "> in\n> lieu of", "Thus,"])
def test_a_turn_is_found_over_a_line_break(text):
    assert TURN.search(text)
    assert not TURN.search("changes on; wrong")
