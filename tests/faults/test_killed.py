"""Trainings and runs that are killed or interrupted at any moment: they go on, to the same end, and leave nothing over."""

import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from dynlib import __main__, data
from dynlib.files import atomic
from dynlib.networks import queue, training
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from tests.faults import fault

NETWORK = Network.parse("cifar10-mobilenet-sdnn")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.test_killed"])  # so that each training starts at once


def train(folder: Path) -> None:
    """The command, with the recipe ``tiny``; images of the package's sample play all splits."""
    sample = data.load("cifar10", "test", 400)
    parts = {"train": slice(0, 256), "validation": slice(256, 320), "test": slice(320, 400)}
    training.data.load = lambda dataset, split, n=None: data.Split(sample.images[parts[split]], sample.labels[parts[split]])
    queue.train = partial(training.train, folder=folder)
    folder.mkdir(exist_ok=True)
    with open(folder.with_suffix(".errors"), "w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever has started the tests
    sys.argv = ["dynlib", "train", NETWORK.id, "--recipe", "tiny", "--device", "cpu"]
    __main__.main()


def started(folder: Path) -> multiprocessing.Process:
    process = FORKS.Process(target=train, args=(folder,))
    process.start()
    return process


def shipped(folder: Path) -> dict[str, object]:
    """What a training leaves, except for how long it took."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    card = {key: value for key, value in read_card(NETWORK.path(folder)).items() if key != "minutes"}
    return {"files": files, "weights": NETWORK.path(folder).read_bytes(), "card": card}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed training: its folder, and how long it took."""
    folder = tmp_path_factory.mktemp("whole") / "all"
    server = FORKS.Process(target=print)  # it takes a while to start
    server.start()
    server.join()
    start = time.monotonic()
    started(folder).join()
    return folder, time.monotonic() - start


@fault("killed", "goes on after its last whole epoch; the same weights and card; nothing is left over", 1, 10)
def test_a_killed_training(times, tmp_path, whole):
    """SIGKILL at a random moment of a training"""
    undisturbed, seconds = whole
    dice, cut = random.Random(times), 0
    for number in range(times):
        folder = tmp_path / str(number)
        process = started(folder)
        process.join(dice.uniform((number + 0.2) / times, (number + 1) / times) * seconds)
        process.kill()
        process.join()
        cut += process.exitcode == -signal.SIGKILL
        last = started(folder)
        last.join()
        assert last.exitcode == 0
        assert shipped(folder) == shipped(undisturbed)
    assert cut > times / 2  # the others had come to their end


@fault("two at once", "both come to the same end as one", 0, 2)
def test_two_trainings_at_once(times, tmp_path, whole):
    """A training started twice at once"""
    for number in range(times):
        both = [started(tmp_path / str(number)) for _ in range(2)]
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
        assert shipped(tmp_path / str(number)) == shipped(whole[0])


@fault("interrupted", "one line; the same command goes on after the last whole epoch", 0, 3)
def test_an_interrupted_training(times, tmp_path, whole):
    """SIGINT, as of Ctrl-C, once a training has done an epoch"""
    for number in range(times):
        folder = tmp_path / str(number)
        process = started(folder)
        while not list(folder.glob("training/*.safetensors")):
            assert process.is_alive()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        process.join()
        assert process.exitcode == 1
        assert folder.with_suffix(".errors").read_text() == "interrupted\n"
        last = started(folder)
        last.join()
        assert shipped(folder) == shipped(whole[0])


def dies_writing(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text("half of the n")
        os.kill(os.getpid(), signal.SIGKILL)


@fault("killed", "the old file is whole; what was half-written is cleared by the next who writes there", 5, 20)
def test_a_killed_writer(times, tmp_path):
    """SIGKILL in the middle of writing a file"""
    path = tmp_path / "kept.txt"
    path.write_text("old")
    writers = [FORKS.Process(target=dies_writing, args=(path,)) for _ in range(times)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(".partial-*"))) >= 1
    alive = tmp_path / f".partial-{platform.node()}-{os.getppid()}"
    alive.mkdir()
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert {*tmp_path.iterdir()} == {path, alive}  # of a process that is still at work
