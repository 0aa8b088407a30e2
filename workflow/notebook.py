"""Run one notebook through papermill on the records of a run."""

import argparse
import hashlib
import json
import os
from pathlib import Path

import nbformat
import papermill
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

from dynlib.files import ROOT, atomic, home
from workflow.environment import clean

CELL_SECONDS = 1800  # far more than any cell takes: a kernel that never answers stops the run


class OwnKernel(AsyncKernelManager):
    """Starts kernels with the interpreter that runs now, whatever kernels are registered on the machine."""

    kernel_spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict(["--log-level=ERROR"]))

    async def start_kernel(self, **given):
        await super().start_kernel(**{**given, "env": clean(os.environ)})


def literal(path: Path) -> str:
    """A path for papermill, which takes braces for the places of parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def execute(path: Path, out: Path, parameters: dict | None = None) -> None:
    """Run a notebook in its own folder, and write it with its outputs."""
    papermill.execute_notebook(
        literal(path),
        literal(out),
        parameters=parameters,
        cwd=str(path.parent),
        progress_bar=False,
        log_output=False,
        execution_timeout=CELL_SECONDS,
        kernel_manager_class=OwnKernel,
    )


def source_digest(path: Path) -> str:
    """Identifies what a notebook says and computes, whatever its outputs are."""
    cells = nbformat.read(path, as_version=4).cells
    source = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()


def publish(executed: Path, target: Path) -> None:
    """Put the outputs of a run into the notebook itself, without papermill's record of when it ran."""
    # How a cell's prints are cut into outputs depends on the moment.
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True).preprocess(nbformat.read(executed, as_version=4), {})
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    with atomic(target) as temporary:
        nbformat.write(notebook, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.notebook", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--run", required=True)
    parser.add_argument("--parameters", type=json.loads, default={}, help="as JSON")
    given = parser.parse_args()
    print(f"notebook {given.name}", flush=True)
    with atomic(home(given.run) / "notebooks" / f"{given.name}.ipynb") as temporary:
        execute(ROOT / "notebooks" / f"{given.name}.ipynb", temporary, {"run": given.run, **given.parameters})


if __name__ == "__main__":
    main()
