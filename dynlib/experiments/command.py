"""The command that the workflow calls: run an experiment and write what was seen, with what it stands on."""

import argparse
import json
import sys
import time
from pathlib import Path

from dynlib import data
from dynlib.experiments import EXPERIMENTS
from dynlib.experiments.common import provenance, write
from dynlib.networks import checkpoints


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib measure", description="Measure one network and write what was seen.")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--source", required=True, help="network id such as cifar10-resnet56-dynn")
    parser.add_argument("--targets", nargs="*", default=[], help="network ids")
    parser.add_argument("--settings", required=True, type=json.loads, help="the other arguments, as JSON")
    parser.add_argument("--out", required=True, type=Path, help="CSV or safetensors file")
    given = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        result = EXPERIMENTS[given.experiment](given.source, given.targets, **given.settings)
        networks = sorted({given.source, *given.targets})
        write(result, provenance(given.settings, networks, time.perf_counter() - start), given.out)
    except (ValueError, TypeError, OSError, data.DataError, checkpoints.CheckpointError) as error:
        sys.exit(f"error: {error}")
