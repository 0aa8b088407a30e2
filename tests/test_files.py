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

from dynlib import data, files, records
from dynlib.files import CHECKPOINTS, ROOT, atomic
from dynlib.networks import checkpoints
from dynlib.networks.identity import Network

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
