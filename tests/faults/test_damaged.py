"""Files in which a byte is another, or whose end is missing: refused by name, or as good as before; never used."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dynlib import data, profiles, records
from dynlib.data import DataError
from dynlib.datasets import DATASETS, Dataset
from dynlib.files import CHECKPOINTS, PROFILES
from dynlib.networks import checkpoints, training
from dynlib.networks.checkpoints import CheckpointError
from dynlib.networks.identity import Network
from dynlib.networks.training import Training
from dynlib.profiles import ProfileError
from dynlib.records import RecordsError
from tests.faults import fault
from tests.faults.cases import block
from tests.test_environment import INSTALLS

SAFE = "refused by name, or read as it was"
ERRORS = (CheckpointError, DataError, ProfileError, RecordsError)


def damages(content: bytes, times: int) -> Iterator[bytes]:
    """Half of them have one byte changed, anywhere; the others are cut short, anywhere."""
    dice = random.Random(0)
    for number in range(times):
        place = dice.randrange(len(content))
        if number % 2:
            yield content[:place]
        else:
            yield content[:place] + bytes([content[place] ^ dice.randrange(1, 256)]) + content[place + 1 :]


def attempt(read: Callable[[], object]) -> tuple[object, str]:
    """What is read, or why not."""
    try:
        return read(), ""
    except ERRORS as error:
        return None, str(error)


def check(file: Path, read: Callable[[], object], times: int) -> None:
    """Every damage to ``file`` is refused in one line that names it, or ``read`` finds what it found before."""
    sound, content, refused = read(), file.read_bytes(), 0
    for damaged in damages(content, times):
        file.write_bytes(damaged)
        found, refusal = attempt(read)
        assert refusal or found == sound
        assert not refusal or (file.stem in refusal and "\n" not in refusal), refusal
        refused += bool(refusal)
    assert refused > times / 3  # most damages are no harmless ones
    file.write_bytes(content)
    assert read() == sound


def said(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """A state as what can be compared."""
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()}


@fault("damaged files", SAFE, 60, 1000)
def test_weights(times, tmp_path):
    """A byte changed, or the end missing, in a network's weights"""
    for suffix in (".json", ".safetensors"):
        shutil.copy(CHECKPOINTS / f"cifar10-resnet56-sdnn{suffix}", tmp_path)
    file = tmp_path / "cifar10-resnet56-sdnn.safetensors"
    check(file, lambda: said(checkpoints.load("resnet56", "cifar10", "sdnn", folder=tmp_path).state_dict()), times)


@fault("damaged files", SAFE, 200, 2000)
def test_card(times, tmp_path):
    """A byte changed, or the end missing, in a network's card"""
    network = Network.parse("cifar10-resnet56-sdnn")
    file = Path(shutil.copy(network.path(CHECKPOINTS), tmp_path))
    card = checkpoints.read_card(network.path(CHECKPOINTS))
    checkpoints.write_card(file, card)
    # A byte changed in the name of the digest makes this a card without one, and all that it says is as it was.
    check(file.with_suffix(".json"), lambda: [checkpoints.read_card(file).get(key) for key in card], times)


@fault("damaged files", SAFE, 12, 400)
def test_running_state(times, tmp_path, monkeypatch):
    """A byte changed, or the end missing, in what an interrupted training left"""
    small = data.load("cifar10", "test", 64)
    monkeypatch.setattr(training.data, "load", lambda *_: small)
    network = Network.parse("cifar10-mobilenet-sdnn")
    begun = Training(network, "tiny", folder=tmp_path)
    begun.history.append(begun._epoch(0))
    begun._save_state()

    def read():
        resumed = Training(network, "tiny", folder=tmp_path)
        buffers = {f"{n}.{k}": v for n, each in resumed.optimiser.state_dict()["state"].items() for k, v in each.items()}
        return resumed.history, said(resumed.net.state_dict() | buffers)

    check(begun.state_path, read, times)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of data with a small set in it."""
    rng, arrays, digests = np.random.default_rng(0), {}, {}
    for part in ("train", "test"):
        images, labels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10
        digests[part] = data.digest(*data.canonical(images, labels))
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(tmp_path / "small.npz", **arrays)
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    channels = (0.5, 0.5, 0.5)
    monkeypatch.setitem(DATASETS, "small", Dataset("small", "Small", 10, channels, channels, digests, validation=10))
    return tmp_path


@fault("damaged files", SAFE, 200, 2000)
def test_data(times, folder):
    """A byte changed, or the end missing, in a prepared data set"""

    def read():
        data._read_prepared.cache_clear()
        return [part.numpy().tobytes() for split in data.SPLITS for part in data.load("small", split)]

    check(folder / "small.npz", read, times)


@fault("damaged files", SAFE, 40, 400)
def test_sample(times, tmp_path, monkeypatch):
    """A byte changed, or the end missing, in the images or labels that come with the package"""
    for suffix in (".json", ".png"):
        shutil.copy(data.SAMPLES / f"cifar10_validation{suffix}", tmp_path)
    monkeypatch.setattr(data, "SAMPLES", tmp_path)
    for suffix in (".json", ".png"):
        file = tmp_path / f"cifar10_validation{suffix}"
        check(file, lambda: [part.numpy().tobytes() for part in data.load("cifar10", "validation", 500)], times // 2)


@fault("damaged files", SAFE, 400, 4000)
def test_records(times, tmp_path):
    """A byte changed, or the end missing, in records"""
    source, rng = Network("cifar10", "resnet56"), np.random.default_rng(0)
    for kind in records.SCHEMAS:
        blocks = [block(rng, kind, source, source, name, 20, 10**9) for name in ("pgd(eps=1/255)", "fgsm")]
        about = {"profile": "quick", "settings": {"images": {"test": 20}}, "weights": {}, "device_seconds": 12.5}
        file = records.write(tmp_path, kind, source, blocks, about)

        def read(kind=kind, file=file):
            ((_, table),) = records.read(tmp_path, kind, {})
            return {**records.about(file), "rows": table.to_pylist()}

        check(file, read, times // 2)


@fault("damaged files", "refused by name, or taken as it now stands; nothing is left of what was read before", 60, 1000)
def test_profile(times, tmp_path):
    """A byte changed, or the end missing, in a profile"""
    for path in PROFILES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    sound = profiles.load("published", tmp_path)
    file = tmp_path / "published.yaml"
    same = 0
    for damaged in damages(file.read_bytes(), times):
        file.write_bytes(damaged)
        profiles.load.cache_clear()
        found, refusal = attempt(lambda: profiles.load("published", tmp_path))
        if found is None:
            assert refusal.startswith("profile published: ")
            assert "\n" not in refusal
            continue
        text = yaml.safe_load(damaged)
        assert text.keys() == yaml.safe_load((PROFILES / "published.yaml").read_text()).keys()
        same += found == sound
        for name, campaign in found.campaigns.items():
            assert campaign.images == text["campaigns"][name]["images"]
    assert same < times / 2


@fault("damaged files", "refused by name before anything runs", 100, 1000)
def test_lock(times, checkout):
    """A byte changed, or the end missing, in the lock of packages"""
    lock = checkout.folder / "requirements.lock"
    assert checkout() == (True, INSTALLS)
    for damaged in damages(lock.read_bytes(), times):
        lock.write_bytes(damaged)
        assert checkout() == (False, [])


@fault("damaged files", "refused by name", 1, 1)
def test_a_card_of_other_numbers(times, tmp_path):
    """A card in which somebody has improved an accuracy"""
    network = Network.parse("cifar10-resnet56-sdnn")
    file = Path(shutil.copy(network.path(CHECKPOINTS), tmp_path))
    checkpoints.write_card(file, checkpoints.read_card(network.path(CHECKPOINTS)))
    card = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(card | {"test_accuracy": [99.9]}))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.read_card(file)
