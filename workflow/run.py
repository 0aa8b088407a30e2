"""Check a profile, run Snakemake on it, and say what was done. Called by run_all.sh."""

import argparse
import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import papermill
import yaml
from pydantic import TypeAdapter, ValidationError

from dynlib import claims, data, experiments
from dynlib.attacks import EarlyAttack, EarlyPGD
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS, RESULTS, ROOT
from dynlib.mechanisms import ConfidenceExit
from dynlib.networks.identity import KINDS, Network
from workflow.environment import clean
from workflow.notebook import literal

PROFILES = ROOT / "workflow" / "profiles"
KEYS = {"networks", "recipe", "device", "notebooks", "restarts", *experiments.EXPERIMENTS} - {*experiments.RESTARTS}


class ProfileError(ValueError):
    """A profile that cannot be run; the message is one line."""


def load_profile(name: str) -> dict[str, Any]:
    """A profile's settings, every name, type and range checked before anything runs.

    Its ``restarts`` say what differs where an experiment is run again; they come back as experiments of their own, with the rest of
    that experiment's settings.

    Raises:
        ProfileError: naming the profile, the setting and what is wrong with it.
    """
    path = PROFILES / f"{name}.yaml"
    try:
        if not path.exists():
            raise ProfileError(f"there is no {path.relative_to(ROOT)}")
        profile = yaml.safe_load(path.read_text())
        check_names(profile, KEYS, "settings")
        changes = profile.pop("restarts")
        check_names(changes, {*experiments.RESTARTS.values()}, "restart")
        profile |= {restart: {**profile[name], **changes[name]} for restart, name in experiments.RESTARTS.items()}
        for dataset, models in profile["networks"].items():
            for network in (Network.of(model, dataset, kind) for model in models for kind in KINDS):
                if profile["recipe"] is None and not network.path(CHECKPOINTS).exists():
                    raise ProfileError(f"{network} is not shipped, and without a recipe nothing is trained")
        for experiment in experiments.EXPERIMENTS:
            check_experiment(experiment, profile[experiment])
        for notebook, parameters in profile["notebooks"].items():
            check_parameters(ROOT / "notebooks" / f"{notebook}.ipynb", parameters)
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        raise ProfileError(f"profile {name}: {error}") from None
    return profile


def check_names(given: dict, known: set[str], what: str) -> None:
    wrong = sorted(set(given) ^ known)
    if wrong:
        raise ProfileError(", ".join(f"{'unknown' if key in given else 'missing'} {what} {key!r}" for key in wrong))


def check_experiment(name: str, settings: dict[str, Any]) -> None:
    """Against the experiment's signature, then each value by what it is for."""
    check_call(experiments.EXPERIMENTS[name], settings, name, given_elsewhere={"device"})

    def every(key: str) -> list:
        value = settings.get(key, [])
        return value if isinstance(value, list) else [value]

    for key in {"n_images", "batches", "rounds", "steps", "eps_255", "iterations"} & set(settings):
        if min(every(key), default=0) < 1:
            raise ProfileError(f"{name}: {key} is {settings[key]}: need at least 1")
    for threshold in every("threshold") + every("thresholds") + every("other_thresholds"):
        ConfidenceExit(threshold)
    if "eps_255" in settings:
        pgd = {"name": "pgd", "eps_255": every("eps_255"), "steps": max(every("steps")), "threshold": 0.5, "seed": settings["seed"]}
        experiments.grid(**pgd, losses=settings.get("losses", ["final"]))
    for variant in every("variants"):
        EarlyPGD(loss=variant)
    for alpha in every("alphas"):
        EarlyAttack(alpha=alpha)
    for spec in settings.get("attacks", []):
        check_call(experiments.grid, spec, f"{name}, attacks", given_elsewhere={"threshold", "seed"})
        experiments.grid(**spec, seed=settings["seed"])


def check_call(function: Callable, given: dict[str, Any], what: str, given_elsewhere: set[str]) -> None:
    """Names and types of settings against a function's keyword-only parameters."""
    parameters = {k: p for k, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}
    optional = {key for key, parameter in parameters.items() if parameter.default is not parameter.empty}
    check_names(given, set(parameters) - given_elsewhere - (optional - set(given)), f"setting of {what}")
    hints = get_type_hints(function)
    for key, value in given.items():
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError:
            raise ProfileError(f"{what}: {key} is {value!r}, not {hints[key]}") from None


def check_parameters(path: Path, parameters: dict[str, Any]) -> None:
    """Against the notebook's parameters cell: papermill itself only warns of an unknown name and never looks at types."""
    if not path.exists():
        raise ProfileError(f"there is no {path.relative_to(ROOT)}")
    known = papermill.inspect_notebook(literal(path))
    for name, value in parameters.items():
        if name not in known:
            raise ProfileError(f"{path.name} has no parameter {name!r}: it has {', '.join(known)}")
        default = ast.literal_eval(known[name]["default"])
        if type(value) is not type(default):
            raise ProfileError(f"{path.name}: {name} is {value!r}, not a {type(default).__name__}")


def sampled(profile: dict[str, Any], experiment: str, dataset: str) -> bool:
    """Whether the bundled sample holds all images of an experiment."""
    return DATASETS[dataset].bundled("test", profile[experiment]["n_images"])


def measurable(profile: dict[str, Any], experiment: str, dataset: str) -> bool:
    """Whether the images of an experiment are here, or will be fetched because the profile trains on them."""
    there = (data.folder() / f"{dataset}.npz").exists()
    return there or profile["recipe"] is not None or sampled(profile, experiment, dataset)


def notices(profile: dict[str, Any], name: str) -> list[str]:
    """A line for each data set whose committed results have to do."""
    return [
        f"{DATASETS[dataset].display} is not here: {experiment} uses the results in results/{name} "
        f"(`python -m dynlib data {dataset}` fetches it)"
        for experiment in experiments.EXPERIMENTS
        for dataset in profile["networks"]
        if not measurable(profile, experiment, dataset)
    ]


def summary(profile: str) -> str:
    """The table of steps and minutes, then the verdicts."""
    lines = ["step                                          minutes"]
    for path in sorted((RESULTS / profile / "timings").glob("*.tsv")):
        seconds = float(path.read_text().splitlines()[1].split("\t")[0])
        lines.append(f"{path.stem:<45}{seconds / 60:8.1f}")
    for claim in claims.CLAIMS:
        found = claims.finding(claim, profile)
        lines.append(f"{claim}  {f'{found.verdict}: {found.seen} ({found.scale})' if found else 'not measured yet'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.run", description=__doc__)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    try:
        profile = load_profile(given.profile)
    except ProfileError as error:
        sys.exit(f"error: {error}")
    if set("{}") & set(os.path.relpath(data.folder(), ROOT)):
        sys.exit(f"error: DYNLIB_DATA is {data.folder()}: Snakemake takes the braces for a wildcard, so choose another folder")
    for notice in notices(profile, given.profile):
        print(notice, flush=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--config", f"profile={given.profile}"]
    command += ["--cores", given.cores, "--rerun-incomplete"]
    # Every file is written to a temporary name first, so a lock left by a killed run has nothing to protect.
    command += ["--nolock"]
    command += ["--dry-run"] if given.dry_run else ["--quiet", "all"]
    code = subprocess.run(command, cwd=ROOT, env=clean(os.environ)).returncode
    if code:
        logs = sorted((ROOT / ".snakemake" / "log").glob("*.log"))
        sys.exit(f"error: the run stopped; {logs[-1] if logs else 'Snakemake'} tells more")
    if not given.dry_run:
        print(summary(given.profile))


if __name__ == "__main__":
    main()
