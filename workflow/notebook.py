"""Run one notebook through papermill; in the profile whose outputs are committed, publish it with them."""

import argparse
import hashlib
import json
import time
from pathlib import Path

import nbformat
import papermill

from dynlib.files import PUBLISHED, RESULTS, ROOT, atomic


def source_digest(path: Path) -> str:
    """Identifies what a notebook says and computes, whatever its outputs are."""
    cells = nbformat.read(path, as_version=4).cells
    source = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def publish(executed: Path, target: Path) -> None:
    """Put the outputs of a run into the notebook itself, without papermill's record of when it ran."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.notebook", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--parameters", required=True, type=json.loads)
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    path = ROOT / "notebooks" / f"{given.name}.ipynb"
    print(f"notebook {given.name}", flush=True)
    start = time.perf_counter()
    papermill.execute_notebook(
        str(path), str(given.out), parameters=given.parameters, cwd=str(path.parent), progress_bar=False, log_output=False
    )
    with atomic(RESULTS / given.profile / "minutes" / f"{given.name}.json") as temporary:
        temporary.write_text(json.dumps({"seconds": round(time.perf_counter() - start, 1)}) + "\n")
    if given.profile == PUBLISHED:
        publish(given.out, path)


if __name__ == "__main__":
    main()
