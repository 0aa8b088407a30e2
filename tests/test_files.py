import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dynlib import data, files, profiles, records
from dynlib.analysis import claims
from dynlib.files import CHECKPOINTS, ROOT, atomic
from dynlib.networks import check, checkpoints
from dynlib.networks.identity import Network
from dynlib.networks.training import Training
from workflow.craft import here

WRITER = """
import sys
from pathlib import Path
from dynlib.files import atomic
for number in range(300):
    with atomic(Path(sys.argv[1]) / f"{sys.argv[2]}-{number}") as temporary:
        temporary.write_text("done")
"""


def test_processes_may_write_side_by_side(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 900


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def dies():
        with atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dies()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_says_who_may_read(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "weights.safetensors") as temporary:
            save_file({"w": torch.zeros(1)}, temporary)  # 0600 by itself
    finally:
        os.umask(before)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == mode


@contextmanager
def no_longer_root():
    """Root may read everything, so the tests that ask what others are told become someone else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shelf():
    """A folder that everybody may enter; pytest's own is closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


WEIGHTS = "cifar10-resnet56-sdnn.safetensors"


@pytest.mark.parametrize("name", [WEIGHTS, "cifar10-resnet56-sdnn.json"])
def test_a_forbidden_checkpoint_is_not_called_damaged(shelf, name):
    for part in (WEIGHTS, "cifar10-resnet56-sdnn.json"):
        shutil.copy(CHECKPOINTS / part, shelf)
    (shelf / name).chmod(0)
    with no_longer_root(), pytest.raises(checkpoints.CheckpointError, match=f"{name} may not be read: permission denied$"):
        checkpoints.load("resnet56", "cifar10", "sdnn", folder=shelf)
    if name == WEIGHTS:
        with no_longer_root(), pytest.raises(checkpoints.CheckpointError, match="may not be read"):
            checkpoints.read_weights(shelf / name)


def test_forbidden_data_are_not_called_damaged(shelf, monkeypatch):
    monkeypatch.setenv("DYNLIB_DATA", str(shelf))
    np.savez(shelf / "cifar100.npz", test_images=np.zeros(1), test_labels=np.zeros(1))
    for closed in (shelf / "cifar100.npz", shelf):
        closed.chmod(0)
        with no_longer_root(), pytest.raises(data.DataError, match=r"cifar100\.npz may not be read: permission denied$"):
            data.load("cifar100", "test")
        with no_longer_root(), pytest.raises(data.DataError, match="may not be read"):
            data.prepare("cifar100")
    shelf.chmod(0o755)


def test_forbidden_records_are_not_called_damaged(shelf):
    rows = dict.fromkeys(records.SCHEMAS["examples"].names, 0)
    names = dict.fromkeys(("attack", "split"), "some")
    source = Network("cifar10", "resnet56")
    file = records.write(shelf, "examples", source, [rows | names | records.parts("source", source)], {})
    file.chmod(0)
    with no_longer_root(), pytest.raises(records.RecordsError, match=r"examples\.parquet may not be read: permission denied$"):
        list(records.read(shelf, "examples", {}))


@pytest.mark.parametrize("closed", ["the file", "its folder", "the folder above"])
def test_nothing_forbidden_is_called_missing(shelf, monkeypatch, closed):
    """A folder that may not be read looks empty to ``glob``, and what is in it may look as if it were not there."""
    (shelf / "results").mkdir()
    (shelf / "results" / "claims.csv").write_text("claim\n")
    (shelf / "mine.yaml").write_text("seed: 1")
    (shelf / "training").mkdir()
    state = shelf / "training" / "cifar10-resnet56-sdnn-tiny.safetensors"
    save_file({"w": torch.zeros(1)}, state)
    monkeypatch.setattr(claims, "home", lambda run: shelf)
    monkeypatch.setenv("DYNLIB_DATA", str(shelf / "data"))
    (shelf / "data").mkdir()
    (shelf / "data" / "cifar100.npz").touch()
    training = Training.__new__(Training)
    training.state_path, training.device = state, "cpu"
    folders = [shelf / "results", shelf / "training", shelf / "data"]
    files = [shelf / "results" / "claims.csv", shelf / "mine.yaml", state, shelf / "data" / "cifar100.npz"]
    for path in {"the file": files, "its folder": folders, "the folder above": [shelf]}[closed]:
        path.chmod(0)
    uses = {
        "claims.csv": (lambda: claims.read("mine"), records.RecordsError),
        "sdnn-tiny.safetensors": (training._resume, checkpoints.CheckpointError),
        "cifar100.npz": (lambda: data.load("cifar100", "test"), data.DataError),
    }
    if closed != "its folder":
        uses["mine.yaml"] = (lambda: profiles.load("mine", shelf), profiles.ProfileError)
    if closed != "the file":
        uses |= {
            "results": (lambda: list(records.read(shelf / "results", "examples", {})), records.RecordsError),
            "training": (lambda: check.shipped(shelf / "training"), PermissionError),
            "cifar100": (lambda: here("cifar100", {"test": 1}), PermissionError),
        }
    try:
        for name, (use, error) in uses.items():
            told = "Permission denied: .*" if error is PermissionError else rf"{name} may not be read: permission denied$"
            with no_longer_root(), pytest.raises(error, match=told):
                use()
    finally:
        shelf.chmod(0o755)


# A copy of the package alone, as ``pip install .`` makes it.
ALONE = """
import dynlib
assert len(dynlib.data.load("cifar10", "test", 5).labels) == 5
assert dynlib.ConfidenceExit().run(dynlib.build("mobilenet", "cifar10").eval(), dynlib.data.load("cifar10", "test", 2).inputs)
from dynlib import profiles
for use in (lambda: dynlib.load("resnet56", "cifar10", "dynn"), lambda: profiles.load("quick")):
    try:
        use()
    except Exception as error:
        print(error)
"""


def test_a_package_without_its_repository_works_or_says_what_it_lacks(tmp_path):
    shutil.copytree(ROOT / "dynlib", tmp_path / "dynlib", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def python(*arguments):
        return subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    told = python("-c", ALONE).stdout.splitlines()
    assert len(told) == 2
    for line in (*told, python("-m", "dynlib", "check-networks").stderr.strip()):
        assert line.endswith("clone the repository, and `pip install -e .` there")
        assert "\n" not in line
    assert python("-m", "dynlib", "audit", "--help").returncode == 0


def test_line_endings_change_no_digest(tmp_path, monkeypatch):
    """The digest of the code, with all its files as a checkout on Windows might have them."""
    shutil.copytree(ROOT / "dynlib", tmp_path / "dynlib", ignore=shutil.ignore_patterns("__pycache__", "sample"))
    for path in (tmp_path / "dynlib").rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    expected = files.code_version.__wrapped__()
    monkeypatch.setattr(files, "ROOT", tmp_path)
    assert files.code_version.__wrapped__() == expected


def test_git_changes_no_binary_file_and_no_line_ending():
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        state, name = line.split("\t")
        binary = name.endswith((".npz", ".parquet", ".pdf", ".png", ".safetensors"))
        assert ("attr/-text" in state) == binary, line
        assert binary or state.startswith(("i/lf", "i/none")), line
