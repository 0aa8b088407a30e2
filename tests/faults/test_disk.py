"""Disks that are full and folders that may not be written: the old file stays, one line names the new one, nothing is left."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from dynlib import data, records
from dynlib.files import atomic
from dynlib.networks import checkpoints, training
from dynlib.networks.identity import Network
from dynlib.networks.training import Training
from tests.faults import fault
from tests.faults.cases import block
from tests.test_files import no_longer_root
from workflow.notebook import publish

SOURCE = Network("cifar10", "mobilenet", "none")
LARGE = 300_000  # bytes that there is room for; each of the files is larger


def write_records(folder: Path) -> None:
    rng = np.random.default_rng(0)
    records.write(folder, "answers", SOURCE, [block(rng, "answers", SOURCE, SOURCE, "pgd", 60_000, 1)], {"settings": {}})


def write_weights(folder: Path) -> None:
    checkpoints.write_weights({"kernel": torch.rand(400, 500)}, SOURCE.path(folder))


def write_state(folder: Path) -> None:
    begun = Training(SOURCE, "tiny", folder=folder.parent / "nothing")
    begun.history.append({"epoch": 1})
    begun.state_path = folder / begun.state_path.name
    begun._save_state()


def write_data(folder: Path) -> None:
    data.prepare("cifar10")


def write_notebook(folder: Path) -> None:
    publish(folder.parent / "made.ipynb", folder / "shown.ipynb")


def write_table(folder: Path) -> None:
    with atomic(folder / "claims.csv") as temporary:
        pd.DataFrame(np.random.default_rng(0).random((4000, 10))).to_csv(temporary)


WRITERS = [write_records, write_weights, write_state, write_data, write_notebook, write_table]


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """What the writers write is there; the folder that they write to is open for everybody."""
    small = data.load("cifar10", "test", 1000)
    monkeypatch.setattr(training.data, "load", lambda *_: small)
    arrays = small.images.permute(0, 2, 3, 1).numpy(), small.labels.numpy()
    monkeypatch.setattr(data, "SOURCES", {"cifar10": {"made up": lambda: {"test": arrays}}})
    monkeypatch.setattr(data, "verified", lambda dataset, part, *arrays: arrays)
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_mode & 0o5 != 0o5:
            above.chmod(0o755)
    long = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("x" * 400_000, id="only")])
    nbformat.write(long, tmp_path / "made.ipynb")
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path / "there"))
    return tmp_path / "there"


def withstood(write: Callable[[Path], None], folder: Path, broken: Callable, reason: str) -> None:
    """A writer meets a fault: on an empty folder, and where there was a file before."""
    for there in (False, True)[: 1 if write is write_data else 2]:  # data that are there are not written again
        if there:
            write(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with broken(folder), pytest.raises(OSError, match=reason) as caught:
            write(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)  # which disk, which file
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        write(folder)  # and once there is room, it goes on
        for path in folder.iterdir():
            path.unlink()


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """No file may be larger than there is room for: the limit that every system has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Root may write everywhere, so somebody else writes."""
    folder.chmod(0o555)
    try:
        with no_longer_root():
            yield
    finally:
        folder.chmod(0o755)


@fault("full disk", "the old file is whole, nothing is left over, one line names the file", 6, 6)
def test_a_limit_of_room(times, prepared):
    """No room for records, weights, a training's state, data, a notebook, a table (a limit of the size of files)"""
    assert times == len(WRITERS)
    for write in WRITERS:
        withstood(write, prepared, no_room, "File too large")


@fault("full disk", "the old file is whole, nothing is left over, one line names the file", 6, 6)
def test_a_full_disk(times, prepared):
    """No room for records, weights, a training's state, data, a notebook, a table (a disk that is full)"""
    assert times == len(WRITERS)
    with a_small_disk(prepared):
        for write in WRITERS:
            withstood(write, prepared, filled, "No space left")


@contextmanager
def a_small_disk(folder: Path, size: str = "64m") -> Iterator[None]:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """All room on the disk is taken except for ``LARGE``."""
    ballast = folder.parent / "there" / ".ballast"
    free = os.statvfs(folder)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - LARGE)
    try:
        yield
    finally:
        ballast.unlink()


@fault("read-only folder", "nothing is changed, one line names the place", 6, 6)
def test_a_folder_that_may_not_be_written(times, prepared):
    """Records, weights, a training's state, data, a notebook, a table in a folder of somebody else"""
    assert times == len(WRITERS)
    for write in WRITERS:
        withstood(write, prepared, read_only, "Permission denied")
