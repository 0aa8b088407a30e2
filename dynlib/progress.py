"""Saying what a long step is doing: a bar for people, plain lines where there is no terminal."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Yields the items, a sized collection of them, and reports on standard error how many are done."""
    total = len(items) if isinstance(items, Sized) else len(items := list(items))
    terminal, reported = sys.stderr.isatty(), 0
    for done, item in enumerate(items):
        if terminal:
            print(f"\r{label} [{'#' * (20 * done // total):<20}] {done}/{total}", end="", file=sys.stderr, flush=True)
        yield item
        if not terminal and (4 * (done + 1) // total) > reported:  # a line at each quarter
            reported = 4 * (done + 1) // total
            print(f"{label} {done + 1}/{total}", file=sys.stderr, flush=True)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr)
