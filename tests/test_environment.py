"""The three descriptions of the environment agree, and the code is clean."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from dynlib.files import ROOT

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


def test_training_and_experiments_import_nothing_heavy():
    code = (
        "import sys, dynlib.networks.training, dynlib.experiments; "
        "sys.exit(', '.join({'pandas', 'scipy', 'matplotlib', 'seaborn', 'yaml', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
