"""Run a module of this checkout in an environment in which nothing that the user has set changes what comes out.

``python -m workflow.environment pytest`` is ``python -m pytest`` in it.
"""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dynlib.files import ROOT

OWN = ROOT / ".config"  # what other programs would keep in the home folder, which may belong to another project or be read-only

# Settings of Python, of the programs used here, and of shells. They choose backends, kernels, options, styles and numerics.
FOREIGN = ("PYTHON", "JUPYTER", "IPYTHON", "IPYKERNEL", "MPL", "MATPLOTLIB", "PAPERMILL", "SNAKEMAKE", "PYTEST", "TORCH_", "LC_")
FOREIGN += ("BASH_ENV", "CDPATH", "GIT_", "HYPOTHESIS", "MYPY", "RUFF_", "SOURCE_DATE_EPOCH", "TQDM_")
# These choose how numbers are computed: with less precision, or by the instructions of another processor.
FOREIGN += ("ATEN_", "BLIS_", "CUBLAS_", "DNNL_", "MKL_", "NPY_", "NUMEXPR", "NVIDIA_TF32", "ONEDNN_", "OPENBLAS", "VECLIB_")
# How many threads a step may use is Snakemake's to say. These would overrule OMP_NUM_THREADS, or pin threads to one core.
FOREIGN += ("OMP_PROC_BIND", "OMP_PLACES", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "KMP_", "GOMP_")
EXACT = {"ENV", "LANG"}  # of these, not what only begins so


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what would change a result, and with this checkout and this interpreter first."""
    kept = {name: value for name, value in environment.items() if name not in EXACT and not name.startswith(FOREIGN)}
    if kept.get("DYNLIB_DATA"):
        kept["DYNLIB_DATA"] = os.path.abspath(kept["DYNLIB_DATA"])  # notebooks run in their own folder
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, say, whose users have numbers and no names
        user = "nobody"
    return kept | {
        "LOGNAME": user,
        "HOME": environment.get("HOME") or str(OWN),
        # The steps call plain `python`: let it be this one.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]),
        # Before what is installed, which may be another checkout's.
        "PYTHONPATH": str(ROOT),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",  # files are UTF-8, whatever the locale says
        "LC_ALL": "C",
        "MPLCONFIGDIR": str(OWN / "matplotlib"),
        "IPYTHONDIR": str(OWN / "ipython"),
        "JUPYTER_CONFIG_DIR": str(OWN / "jupyter" / "config"),
        "JUPYTER_DATA_DIR": str(OWN / "jupyter" / "data"),
        "JUPYTER_RUNTIME_DIR": str(OWN / "jupyter" / "runtime"),
        "JUPYTER_NO_CONFIG": "1",
        "XDG_CONFIG_HOME": str(OWN / "xdg"),
        "XDG_CACHE_HOME": str(OWN / "cache"),
    }


def main() -> None:
    environment = clean(os.environ)
    for name in ("MPLCONFIGDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_CACHE_HOME"):
        Path(environment[name]).mkdir(parents=True, exist_ok=True)
    os.execve(sys.executable, [sys.executable, "-m", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
