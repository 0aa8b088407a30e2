"""The command that reads all claims from a run's records and writes its tables of them, such as ``results/claims.csv``."""

import argparse
import sys

from dynlib.analysis import claims
from dynlib.files import PUBLISHED, atomic, home
from dynlib.profiles import ProfileError
from dynlib.records import RecordsError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib claims", description="Read all claims from the records of a run.")
    parser.add_argument("run", nargs="?", default=PUBLISHED)
    run = parser.parse_args(arguments).run
    try:
        tables = claims.compute(run)
    except (RecordsError, ProfileError) as error:
        sys.exit(f"error: {error}")
    for name, table in tables.items():
        with atomic(home(run) / "results" / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
