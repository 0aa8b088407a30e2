"""Check a profile, run Snakemake on it, and say what came out. Called by run_all.sh."""

import argparse
import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import papermill

from dynlib import data, profiles
from dynlib.analysis.claims import CLAIMS
from dynlib.attacks.external import External
from dynlib.datasets import DATASETS
from dynlib.devices import check_device
from dynlib.files import CHECKPOINTS, PUBLISHED, RERUN, ROOT, home
from dynlib.networks.identity import Network
from dynlib.profiles import Profile, ProfileError
from dynlib.report.report import main_rows
from workflow.craft import measurable
from workflow.environment import clean
from workflow.notebook import literal


def dynamic(id: str) -> bool:
    """Whether this is the id of a dynamic network on CIFAR-10."""
    try:
        network = Network.parse(id)
    except ValueError:
        return False
    return network.dataset == "cifar10" and not network.is_static


# What notebooks' parameters may be.
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "threshold": ("a number between 0 and 1", lambda value: 0 < value < 1),
    "gallery_network": ("a dynamic network on CIFAR-10", dynamic),
    "gallery_rows": ("1 to 20", lambda value: 1 <= value <= 20),
    "n_images": ("1 to 1000", lambda value: 1 <= value <= 1000),
    "eps_255": ("1 to 255", lambda value: 1 <= value <= 255),
    "steps": ("at least 1", lambda value: value >= 1),
}


def check(profile: Profile) -> None:
    """What a profile asks for beyond its own text: networks that are there, and notebooks with these parameters.

    Raises:
        ProfileError: naming the network, notebook or parameter.
    """
    if profile.recipe is None:
        for network in profile.networks:
            if not network.path(CHECKPOINTS).exists():
                raise ProfileError(f"profile {profile.name}: {network} is not shipped, and without a recipe nothing is trained")
    for name, campaign in profile.campaigns.items():
        for planned in campaign.attacks:
            try:
                _ = planned.attack.made() if isinstance(planned.attack, External) else None
            except (ValueError, ModuleNotFoundError) as error:
                raise ProfileError(f"profile {profile.name}: campaigns.{name}: {error}") from None
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
        if name in RANGES and not RANGES[name][1](value):
            raise ProfileError(f"{path.name}: {name} is {value!r}: need {RANGES[name][0]}")


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


def date_now(paths: Iterable[Path]) -> None:
    """Files from the future, as a clock that was set back leaves them, stop Snakemake: they become files of now, all at once."""
    now = time.time()
    for path in paths:
        with suppress(OSError):  # somebody else's
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))


def ended(snakemake: subprocess.Popen) -> int:
    """Its exit status. Ctrl-C, a request to stop or a closed terminal ends all of it at once, and what is done is kept."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return snakemake.wait()
    except KeyboardInterrupt:
        os.killpg(snakemake.pid, signal.SIGKILL)
        sys.exit("interrupted: the same command goes on from here")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.run", description=__doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--cluster", help="folder of a Snakemake profile for a cluster, where each step of crafting is a job")
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
    command += ["spread=yes", "--profile", given.cluster] if given.cluster else []
    command += ["--cores", given.cores, "--rerun-incomplete"]
    # Every file is written to a temporary name first: what is there is whole, and a killed run's lock has nothing to protect.
    command += ["--keep-incomplete", "--nolock"]
    command += ["--dry-run"] if given.dry_run else ["--quiet", "all"]
    if not given.dry_run:
        try:  # Snakemake would keep the reason to itself
            home(run).mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=home(run)).close()
        except OSError as error:
            sys.exit(f"error: {home(run)}: {error.strerror}")
        date_now([*CHECKPOINTS.glob("*"), *data.folder().glob("*.npz"), *home(run).rglob("*")])
    code = ended(subprocess.Popen(command, cwd=ROOT, env=clean(os.environ), start_new_session=True))
    if code:
        logs = sorted((ROOT / ".snakemake" / "log").glob("*.log"))
        sys.exit(f"error: the run stopped; {logs[-1] if logs else 'Snakemake'} tells more")
    if not given.dry_run:
        print(summary(run))


if __name__ == "__main__":
    main()
