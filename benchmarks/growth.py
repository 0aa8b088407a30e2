"""How time and memory of PGD grow with images, exits and classes; every size in a process of its own, whose peak is its own."""

import resource
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.attacks import EPS, STEPS
from benchmarks.rounds import Scale, Table, taken
from dynlib.attacks import PGD
from dynlib.craft import BATCH
from dynlib.networks.exits import build
from dynlib.networks.folding import folded

IMAGES, EXITS, CLASSES = (10, 100, 1000), (2, 7, 14, 28), (10, 100)
USUAL = {"images": 100, "exits": 7, "classes": 10}


def measured(images: int, exits: int, classes: int) -> tuple[float, float]:
    """Seconds, and megabytes that the peak is above what lay there before, of an attack on an untrained ResNet-56."""
    torch.set_num_threads(1)
    net = folded(build("resnet56", f"cifar{classes}", range(1, exits)).eval().to(memory_format=torch.channels_last))
    x, y = torch.rand(images, 3, 32, 32), torch.arange(images) % classes
    attack = PGD(eps=EPS, steps=STEPS)
    PGD(eps=EPS, steps=1)(net, x[:1], y[:1])  # warms up
    before = peak()
    seconds = taken(lambda: [attack(net, *part) for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])
    return seconds, peak() - before


def peak() -> float:
    """Of this process, in megabytes. Linux takes what the parent had into ``ru_maxrss``, so there the kernel's own file is read."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # of macOS, in bytes


def grown(what: str, sizes: Iterable[int]) -> list[tuple[object, ...]]:
    rows, first = [], None
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            seconds, megabytes = process.submit(measured, **USUAL | {what: size}).result()
        first = first or (size, seconds, megabytes)
        rows.append((what, size, f"{size / first[0]:.1f}", f"{seconds / first[1]:.2f}", f"{megabytes / max(first[2], 1):.2f}"))
    return rows


def tables(scale: Scale) -> list[Table]:
    rows = [row for what, sizes in (("images", IMAGES), ("exits", EXITS), ("classes", CLASSES)) for row in grown(what, sizes)]
    usual = ", ".join(f"{size} {what}" for what, size in USUAL.items())
    text = (
        f"PGD with {STEPS} steps and the loss `average` on an untrained ResNet-56, in batches of {BATCH} as `craft` makes them:"
        f" {usual}, except for the one that grows. Ratios to the first size of each, measured once; memory is what the peak of the"
        " process rises by."
    )
    return [Table("Growth", text, ("what grows", "to", "size", "time", "memory"), rows)]
