"""Make the lesson from its solutions: strip them, run both notebooks, and keep the outputs."""

import argparse
import re
import tempfile
from copy import deepcopy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from dynlib.files import ROOT, atomic
from workflow.notebook import execute, publish

LESSON, SOLUTIONS = (ROOT / "notebooks" / f"{name}.ipynb" for name in ("lesson", "lesson_solutions"))
SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION$", re.DOTALL | re.MULTILINE)


def stripped(notebook: NotebookNode) -> NotebookNode:
    """A copy in which ``...`` stands for each solution, that is, for what nbgrader's marks enclose."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        cell.source = SOLUTION.sub(r"\1...  # your code", cell.source)
    return notebook


def renew(path: Path) -> None:
    """Run a notebook and put its outputs into it, except for widgets, which are dead on a page and different in each run."""
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / path.name
        execute(path, executed)
        notebook = nbformat.read(executed, as_version=4)
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            if cell.cell_type == "code" and any(
                "application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in cell.outputs
            ):
                cell.outputs = []
        nbformat.write(notebook, executed)
        publish(executed, path)


def renew_all() -> None:
    """Make the lesson from its solutions, and run both."""
    with atomic(LESSON) as temporary:
        nbformat.write(stripped(nbformat.read(SOLUTIONS, as_version=4)), temporary)
    for path in (SOLUTIONS, LESSON):
        print(f"notebook {path.stem}", flush=True)
        renew(path)


def main() -> None:
    argparse.ArgumentParser(prog="python -m workflow.lesson", description=__doc__).parse_args()
    renew_all()


if __name__ == "__main__":
    main()
