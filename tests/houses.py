"""Copies of the project with a tiny profile: one cell, a few images, three notebooks."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

from dynlib.files import ROOT

NOTEBOOKS = ("01_transferability", "02_efficiency", "09_claims")


def build(copy: Path) -> Path:
    """Such a copy, in a new folder. Its profile ``smoke`` is the tiny one."""
    for part in ("dynlib", "workflow", "notebooks", "checkpoints", "figures"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "training", ".partial-*"))
    (copy / "results").mkdir()
    shutil.copy(ROOT / "results" / "claims.csv", copy / "results")
    for name in ("requirements.lock", "requirements.lock.sha256"):
        shutil.copy(ROOT / name, copy)
    short = {
        "transfer": {"attack": "pgd", "steps": 2, "eps": "2/255", "each": {"loss": ["average", "final", "taken", "answering"]}},
        "cost": {"attack": "pgd", "step_size": "2/255", "steps": 4, "early_stop": True, "asks": True},
        "strength": {"attack": "pgd", "steps": 2, "eps": "1/255", "each": {"restarts": [1, 2]}},
        "surface": {"attack": "early_pgd", "steps": 2, "eps": "2/255"},
        "designs": {"attack": "early_pgd", "steps": 2, "eps": "2/255", "each": {"exits": ["all", "spread1"]}},
        "defences": {"attack": "pgd", "steps": 2, "eps": "2/255"},
        "undefended": {"attack": "pgd", "steps": 2, "eps": "2/255", "loss": "final"},
        "slowdown": {"attack": "pgd", "steps": 2, "eps": "2/255", "goal": "slow_down", "loss": "uniform"},
        "skipping": {"attack": "pgd", "steps": 2, "eps": "2/255"},
        "published_attack": {"attack": "early_attack", "iterations": 2},
    }
    images = {"images": {"test": 8, "validation": 8}}
    tiny = {
        "extends": "published",
        "seed": 5,
        "mechanism": {"mechanism": "confidence", "threshold": 0.8},
        "networks": [{"dataset": "cifar10", "model": "resnet56"}],
        "campaigns": {"clean": images} | {name: images | {"attacks": [attack]} for name, attack in short.items()},
        "timing": {"images": 2, "batches": [1], "rounds": 1},
    }
    profiles = copy / "workflow" / "profiles"
    whole = yaml.safe_load((profiles / "published.yaml").read_text()) | {"notebooks": {name: {} for name in NOTEBOOKS}}
    (profiles / "published.yaml").write_text(yaml.safe_dump(whole))
    (profiles / "smoke.yaml").write_text(yaml.safe_dump(tiny))
    return copy


def start(house: Path, *wrapper: str, **changes: str) -> subprocess.Popen:
    """Start a run there."""
    command = [*wrapper, sys.executable, "-Es", "-m", "workflow.run", "--profile", "smoke", "--cores", "2"]
    pipe, environment = subprocess.PIPE, os.environ | changes
    return subprocess.Popen(command, cwd=house, env=environment, stdout=pipe, stderr=pipe, text=True)


def kill(run: subprocess.Popen) -> None:
    """As a loss of power does: the run and all that it has started, at once."""
    with suppress(psutil.NoSuchProcess):  # it has ended by itself
        for process in psutil.Process(run.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    run.kill()
    run.communicate()


def records(house: Path) -> dict[Path, int]:
    """Which file each record is: another one when it was written again. Snakemake renews the dates of all of them."""
    return {path: path.stat().st_ino for path in house.glob("runs/smoke/results/*/*.parquet")}


def produced(house: Path) -> dict[str, bytes]:
    """What must be the same, byte for byte, on a second run."""
    files = [*house.glob("runs/smoke/figures/*"), house / "runs" / "smoke" / "results" / "claims.csv"]
    return {str(path.relative_to(house)): path.read_bytes() for path in files}
