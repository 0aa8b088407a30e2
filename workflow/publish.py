"""Redraw all that is published from the committed records: claims, figures, notebooks, the pages' tables.

With ``--records FOLDER`` the records of a run, such as ``runs/rerun/results``, take the committed ones' place first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from dynlib import profiles
from dynlib.files import PUBLISHED, ROOT, home
from workflow.environment import clean
from workflow.notebook import execute, publish


def step(*command: str) -> None:
    """One of the steps, in the clean environment."""
    code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=clean(os.environ)).returncode
    if code:
        sys.exit(code)


def redraw(name: str) -> None:
    """Run a published notebook and put its outputs into it."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    print(f"notebook {name}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / path.name
        execute(path, executed, dict(profiles.load(PUBLISHED).notebooks[name]))
        publish(executed, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.publish", description=__doc__)
    parser.add_argument("--records", type=Path, help="a folder of results to publish")
    parser.add_argument("--cores", default="all")
    given = parser.parse_args()
    results = home(PUBLISHED) / "results"
    if given.records:
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(given.records, results, ignore=shutil.ignore_patterns("claims.csv"))
    for figure in (home(PUBLISHED) / "figures").glob("fig*"):
        figure.unlink()  # a notebook leaves out a figure whose networks are not there
    step("dynlib", "claims")
    cores = (os.cpu_count() or 1) if given.cores == "all" else int(given.cores)
    with ProcessPoolExecutor(min(cores, 4), get_context("spawn")) as pool:  # each has a kernel of up to 2 GB
        list(pool.map(redraw, profiles.load(PUBLISHED).notebooks))
    step("dynlib", "cards")
    step("dynlib", "report")
    step("workflow.cost")


if __name__ == "__main__":
    main()
