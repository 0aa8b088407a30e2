"""Measures, and writes the page: `python -m benchmarks`, on one thread of a machine that does nothing else."""

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import attacks, early, growth, inference, strength
from benchmarks.rounds import Scale, Table
from dynlib.files import atomic

PARTS = {part.__name__.rpartition(".")[2]: part for part in (attacks, inference, early, growth, strength)}
PAGE = Path(__file__).parent / "README.md"


def processor() -> str:
    """Its name, where the system tells."""
    try:
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    except OSError:
        names = []
    return next(iter(names), platform.processor() or platform.machine())


def page(tables: list[Table], scale: Scale, minutes: float) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "foolbox"))
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`; do not edit. Benchmarks are no tests: nothing fails where a goal is missed.",
        "",
        f"- Machine: {processor()} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, one thread used.",
        f"- Versions: Python {platform.python_version()}, {packages}.",
        f"- Scale: {scale.rounds} rounds in which all runs take turns, after one that warms up. Shown is the median, with the"
        " smallest and the largest in brackets.",
        f"- It took {minutes:.0f} minutes.",
    ]
    for table in tables:
        lines += ["", f"## {table.title}", "", table.text, ""]
        lines += [f"| {' | '.join(map(str, row))} |" for row in (table.columns, ["---"] * len(table.columns), *table.rows)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time attacks and dynamic inference.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128, help="images whose attack is timed")
    parser.add_argument("--images", type=int, default=200, help="images of the table of strength")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="by default all")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.batch, given.images) < 1:
        parser.error("rounds, batch and images: need at least 1 of each")
    scale, tables, start, threads = Scale(given.rounds, given.batch, given.images), [], time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in given.parts:
            tables += PARTS[name].tables(scale)
            print(f"{name}: done after {(time.perf_counter() - start) / 60:.1f} minutes", file=sys.stderr)
    finally:
        torch.set_num_threads(threads)
    with atomic(given.out) as temporary:
        temporary.write_text(page(tables, scale, (time.perf_counter() - start) / 60))
    print(given.out)


if __name__ == "__main__":
    main()
