"""Check a profile, run Snakemake on it, and say what came out. Called by run_all.sh."""

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import papermill

from dynlib import data, profiles
from dynlib.analysis.claims import CLAIMS
from dynlib.datasets import DATASETS
from dynlib.devices import check_device
from dynlib.files import CHECKPOINTS, PUBLISHED, RERUN, ROOT, home
from dynlib.profiles import Profile, ProfileError
from dynlib.report.report import main_rows
from workflow.craft import measurable
from workflow.environment import clean
from workflow.notebook import literal


def check(profile: Profile) -> None:
    """What a profile asks for beyond its own text: networks that are there, and notebooks with these parameters.

    Raises:
        ProfileError: naming the network, notebook or parameter.
    """
    if profile.recipe is None:
        for network in profile.networks:
            if not network.path(CHECKPOINTS).exists():
                raise ProfileError(f"profile {profile.name}: {network} is not shipped, and without a recipe nothing is trained")
    for notebook, parameters in profile.notebooks.items():
        check_parameters(ROOT / "notebooks" / f"{notebook}.ipynb", parameters)


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Against the notebook's parameters cell: papermill itself only warns of an unknown name and never looks at types."""
    if not path.exists():
        raise ProfileError(f"there is no {path.relative_to(ROOT)}")
    known = papermill.inspect_notebook(literal(path))
    for name, value in parameters.items():
        if name not in known or name == "run":
            raise ProfileError(f"{path.name} has no parameter {name!r} to set: it has {', '.join(known)}")
        default = ast.literal_eval(known[name]["default"])
        if type(value) is not type(default):
            raise ProfileError(f"{path.name}: {name} is {value!r}, not a {type(default).__name__}")


def notices(profile: Profile) -> list[str]:
    """A line for each data set that is not here."""
    missing = {n.dataset for n in profile.networks for c in profile.campaigns.values() if not measurable(profile, c, n.dataset)}
    return [
        f"{DATASETS[name].display} is not here, so its networks are not measured (`python -m dynlib data {name}` fetches it)"
        for name in sorted(missing)
    ]


def summary(run: str) -> str:
    """The table of steps and minutes, then the verdicts beside the published ones."""
    lines, published, ours = ["step                                          minutes"], main_rows(PUBLISHED), main_rows(run)
    for path in sorted((home(run) / "timings").glob("*.tsv")):
        seconds = float(path.read_text().splitlines()[1].split("\t")[0])
        lines.append(f"{path.stem:<45}{seconds / 60:8.1f}")
    for id, claim in CLAIMS.items():
        for name, table in (("yours", ours), ("published", published)):
            told = f"{claim.verdict(table.loc[id])}: {claim.seen(table.loc[id])}" if id in table.index else "not measured"
            lines.append(f"{id:<4} {name:<10} {told}")
    return "\n".join([*lines, f"More in {(home(run) / 'REPORT.md').relative_to(ROOT)}"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.run", description=__doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    run = RERUN if given.profile == PUBLISHED else given.profile
    try:
        profile = profiles.load(given.profile)
        check(profile)
        if not given.dry_run:
            check_device(profile.device)
        missing = notices(profile)
    except (ProfileError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if set("{}") & set(os.path.relpath(data.folder(), ROOT)):
        sys.exit(f"error: DYNLIB_DATA is {data.folder()}: Snakemake takes the braces for a wildcard, so choose another folder")
    for notice in missing:
        print(notice, flush=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--config", f"run={run}"]
    command += ["--cores", given.cores, "--rerun-incomplete"]
    # Every file is written to a temporary name first: what is there is whole, and a killed run's lock has nothing to protect.
    command += ["--keep-incomplete", "--nolock"]
    command += ["--dry-run"] if given.dry_run else ["--quiet", "all"]
    code = subprocess.run(command, cwd=ROOT, env=clean(os.environ)).returncode
    if code:
        logs = sorted((ROOT / ".snakemake" / "log").glob("*.log"))
        sys.exit(f"error: the run stopped; {logs[-1] if logs else 'Snakemake'} tells more")
    if not given.dry_run:
        print(summary(run))


if __name__ == "__main__":
    main()
