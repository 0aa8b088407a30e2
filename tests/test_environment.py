"""The three descriptions of the environment agree, and the code is clean."""

import getpass
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from dynlib import figures
from dynlib.files import ROOT
from workflow.environment import clean
from workflow.notebook import execute

LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for line in LOCK.splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line)
            versions.setdefault(requirement.name.lower(), set()).add(str(requirement.specifier).removeprefix("=="))
    return versions


def test_lock_satisfies_every_direct_dependency():
    versions = locked()
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert versions[requirement.name], f"{text} is not locked"
        assert all(requirement.specifier.contains(version) for version in versions[requirement.name]), text


def test_lock_is_exact_and_names_no_index():
    assert all(re.match(r"[\w.-]+==[\w.]+( ; .*)?$", line) for line in LOCK.splitlines() if line and line[0] not in "# ")
    assert "://" not in LOCK


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"][-1]["pip"] == ["-r requirements.lock", "-e ."]
    assert "-r requirements.lock" in (ROOT / "run_all.sh").read_text()


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_training_and_attacks_import_nothing_heavy():
    code = (
        "import sys, dynlib.networks.training, dynlib.attacks; "
        "sys.exit(', '.join({'pandas', 'scipy', 'matplotlib', 'seaborn', 'yaml', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What people have in their environments, each of which has spoilt something once.
SPOILT = {
    "MPLBACKEND": "Agg",
    "PYTHONHASHSEED": "x",
    "PYTHONPATH": "/elsewhere",
    "PYTHONSTARTUP": "/elsewhere/start.py",
    "JUPYTER_PATH": "/elsewhere",
    "IPYTHONDIR": "/elsewhere",
    "SNAKEMAKE_PROFILE": "cluster",
    "PYTEST_ADDOPTS": "-k nothing",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "C",
    "BASH_ENV": "/elsewhere/rc",
    "CDPATH": "/",
    "KMP_AFFINITY": "compact",
    "NVIDIA_TF32_OVERRIDE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "MKL_NUM_THREADS": "16",
    "OPENBLAS_NUM_THREADS": "16",
    "NUMEXPR_NUM_THREADS": "16",
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX2",
    "TQDM_DISABLE": "1",
    "GIT_DIR": "/elsewhere/.git",
}


def test_nothing_that_a_user_sets_reaches_a_step():
    plain = {"PATH": "/bin", "HOME": "/nonexistent", "OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "1"}
    assert clean(plain | SPOILT) == clean(plain)
    assert plain.keys() - {"PATH"} <= clean(plain).keys()
    assert clean(clean(plain) | {"PATH": "/bin"}) == clean(plain)
    assert not [name for name, value in clean(plain).items() if "/nonexistent" in value and name != "HOME"]


def test_a_user_without_a_name_or_a_home_has_both_in_a_step(monkeypatch):
    """As in many containers, whose users have numbers only: Snakemake and Jupyter ask for both."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    step = clean(os.environ)
    assert step["LOGNAME"] == "nobody"
    assert Path(step["HOME"]).is_relative_to(ROOT)
    assert clean({"HOME": "/home/some"})["HOME"] == "/home/some"


def test_every_step_starts_clean():
    command = [sys.executable, "-Es", "-m", "workflow.environment", "json.tool", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | SPOILT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_notebooks_run_this_code_with_this_interpreter_and_show_their_figures(tmp_path, monkeypatch):
    """A kernel of the same name is registered elsewhere, and another dynlib lies on the path."""
    kernel = tmp_path / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["false"], "display_name": "another", "language": "python"}))
    (tmp_path / "dynlib.py").write_text("raise RuntimeError")
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "first.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("print = None")
    theirs = {"JUPYTER_PATH": tmp_path, "JUPYTER_DATA_DIR": tmp_path, "PYTHONPATH": tmp_path, "IPYTHONDIR": tmp_path / "ipython"}
    for name, value in {**SPOILT, **theirs}.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}})
    notebook.cells = [
        nbformat.v4.new_code_cell("import sys, dynlib; print(sys.executable, dynlib.__file__, sep='\\n')"),
        nbformat.v4.new_code_cell("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"),
    ]
    folder = tmp_path / "für {alle} Fälle"
    folder.mkdir()
    nbformat.write(notebook, folder / "asked.ipynb")
    execute(folder / "asked.ipynb", folder / "ran.ipynb")
    told, shown = (cell.outputs for cell in nbformat.read(folder / "ran.ipynb", as_version=4).cells)
    assert told[0].text.splitlines() == [sys.executable, str(ROOT / "dynlib" / "__init__.py")]
    assert any("image/png" in output.get("data", {}) for output in shown)


def test_a_users_matplotlibrc_changes_no_figure():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figures.style()
        ours = dict(matplotlib.rcParams)
        matplotlib.rcParams |= {"savefig.bbox": "tight", "text.usetex": True, "lines.marker": "x", "axes.grid": True}
        figures.style()
        assert dict(matplotlib.rcParams) == ours


INSTALLS = ["--disable-pip-version-check -r requirements.lock", "--disable-pip-version-check --no-deps --editable ."]


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_an_environment_is_made_once(checkout, shell):
    assert checkout(shell=shell) == (True, INSTALLS)
    assert checkout(shell=shell) == (True, [])


def test_an_environment_cut_off_anywhere_is_made_again(checkout):
    assert checkout(NO_PIP="1") == (False, [])
    assert checkout(NO_NETWORK="1") == (False, INSTALLS[:1])
    assert checkout() == (True, INSTALLS)
    environment = checkout.folder / ".venv"
    (environment / "installed.lock").unlink()
    (environment / "bin" / "python").unlink()  # killed before there was any
    (environment / "half").touch()
    assert checkout() == (True, INSTALLS)
    assert not (environment / "half").exists()


def test_an_environment_follows_its_checkout(checkout):
    checkout()
    elsewhere = checkout.folder.rename(checkout.folder.with_name("renamed"))
    assert checkout(elsewhere) == (True, INSTALLS)
    assert checkout(elsewhere) == (True, [])


def test_a_linked_environment_is_never_removed(checkout, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (checkout.folder / ".venv").symlink_to(theirs)
    assert checkout() == (False, [])
    assert theirs.exists()


def test_another_checkouts_environment_is_refused(checkout):
    """It works, and would be made this one's behind the other's back."""
    checkout()
    other = shutil.copytree(checkout.folder, checkout.folder.with_name("other"), ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").symlink_to(checkout.folder / ".venv")
    assert checkout(other) == (False, [])
    assert checkout() == (True, [])


def test_hooks_run_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    script = (ROOT / ".ci" / "run").read_text()
    for hook in hooks:
        assert hook["entry"] in script
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
