"""Faults that are really done to the project, and what has to happen then.

``python -m pytest tests/faults --all`` does all of them and prints how many of which kind; without ``--all`` only as many as take
a minute. ``python -m tests.faults`` renders them into docs/faults.md.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from dynlib.files import ROOT

PAGE = ROOT / "docs" / "faults.md"


def fault(kind: str, outcome: str, quick: int, all: int) -> pytest.MarkDecorator:
    """Marks a test that does a fault, which its docstring names: ``quick`` times, and ``all`` times with ``--all``.

    The test asks the fixture ``times`` how often that is, and is skipped where it is never.
    """
    return pytest.mark.fault(kind=kind, outcome=outcome, quick=quick, all=all)


def tests() -> list[Callable]:
    """All that are marked, file by file."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    modules = [import_module(f"{__name__}.{name}") for name in files]
    return [test for module in modules for test in vars(module).values() if marked(test)]


def marked(test: object) -> dict | None:
    """What ``fault`` says about it."""
    return next((mark.kwargs for mark in getattr(test, "pytestmark", []) if mark.name == "fault"), None)


def page() -> str:
    """The table of all faults."""
    lines = [
        "# Faults that are tried",
        "",
        "Rendered from the tests in [tests/faults](../tests/faults) by `python -m tests.faults`; do not edit. Each fault is",
        "actually injected: the column *times* counts every run of the tests, the last one runs with",
        "`python -m pytest tests/faults --all`.",
        "",
        "| kind | fault | what happens | times | with `--all` |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    rows = [(marked(test), " ".join(test.__doc__.split()).removesuffix(".")) for test in tests()]
    for mark, text in sorted(rows, key=lambda row: row[0]["kind"]):
        lines.append(f"| {mark['kind']} | {text} | {mark['outcome']} | {mark['quick'] or ''} | {mark['all']:,} |")
    total = [sum(mark[key] for mark, _ in rows) for key in ("quick", "all")]
    return "\n".join([*lines, f"| all | | | {total[0]:,} | {total[1]:,} |"]) + "\n"
