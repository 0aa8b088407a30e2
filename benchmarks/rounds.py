"""Times of runs that take turns, and the rows that a page shows of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

MODELS = ("resnet56", "mobilenet", "vgg16")
Seconds = Mapping[str, list[float]]  # by run, one of each round


class Table(NamedTuple):
    """A table of a page, with the sentences before it."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]


class Scale(NamedTuple):
    """How much is measured: rounds of each run, images of a batch whose attack is timed, images whose robustness is."""

    rounds: int
    batch: int
    images: int


def taken(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Seconds of each run. In a round all take turns, so that what slows the machine down slows all of them; one more warms up."""
    seconds = [{name: taken(run) for name, run in runs.items()} for _ in range(rounds + 1)]
    return {name: [one[name] for one in seconds[1:]] for name in runs}


def ratios(seconds: Seconds, over: list[str], under: list[str]) -> list[float]:
    """Round by round: what the runs of ``over`` take together, over what those of ``under`` do."""
    sums = ([sum(each) for each in zip(*(seconds[name] for name in names), strict=True)] for names in (over, under))
    return [a / b for a, b in zip(*sums, strict=True)]


def shown(values: list[float]) -> str:
    """The median, and the smallest and the largest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def against(values: list[float], goal: float, at_least: bool = False) -> tuple[str, str, str]:
    """Three cells: values, goal, and whether their median meets it."""
    met = median(values) >= goal if at_least else median(values) <= goal
    return shown(values), f"at {'least' if at_least else 'most'} {goal:g}", "yes" if met else "no"
