"""Try a cluster: run a profile on this machine, then on the cluster, where a job is killed in the middle, and compare the records.

On a SLURM of one node, which is this machine::

    workflow/cluster/one_node.sh .venv/bin/python -m workflow.cluster.trial --profile smoke --cores 2
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from dynlib import records
from dynlib.files import PROFILES, PUBLISHED, ROOT, home

CLUSTER = "workflow/cluster/slurm"
PROGRESS = re.compile(r" (\d+)/(\d+)$", re.MULTILINE)


def start(profile: str, cores: str, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "workflow.run", "--profile", profile, "--cores", cores, *more], cwd=ROOT)


def queue() -> list[list[str]]:
    """All jobs, ended ones too: id, state and rule with wildcards."""
    listed = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--sort=i", "--format=%i|%T|%k"], capture_output=True, text=True
    )
    return [line.split("|") for line in listed.stdout.splitlines()]


def halfway(id: str) -> bool:
    """Whether a job's log says that it has made some of its attacks, but not all."""
    shown = subprocess.run(["scontrol", "show", "job", id], capture_output=True, text=True).stdout
    log = Path(shown.partition("StdOut=")[2].partition("\n")[0])
    return log.is_file() and any(int(done) < int(total) for done, total in PROGRESS.findall(log.read_text()))


def kill_one(run: subprocess.Popen) -> None:
    """Kill the first job that is seen in the middle of its step."""
    while run.poll() is None:
        for id, state, rule in queue():
            if state == "RUNNING" and rule.startswith("rule_craft") and halfway(id):
                subprocess.run(["scancel", id], check=True)
                return print(f"killed job {id}, {rule}", flush=True)
        time.sleep(1)
    sys.exit("error: the run ended before a job was seen in the middle of its step")


def differing(one: Path, other: Path) -> list[str]:
    """The records that are not the same in both, except for the seconds that they took."""
    names = sorted({file.relative_to(folder) for folder in (one, other) for file in folder.glob("*/*.parquet")})
    return [str(name) for name in names if not same(one / name, other / name)]


def same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    stand_on = [{**records.about(file), "device_seconds": None} for file in (one, other)]
    return stand_on[0] == stand_on[1] and pq.read_table(one).equals(pq.read_table(other))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.cluster.trial", description=__doc__.partition(":")[0])
    parser.add_argument("--profile", required=True, choices=sorted({path.stem for path in PROFILES.glob("*.yaml")} - {PUBLISHED}))
    parser.add_argument("--cores", required=True)
    given = parser.parse_args()
    clustered = home(given.profile)
    local = clustered.with_name(f"{clustered.name}-local")
    if clustered.exists():
        sys.exit(f"error: {clustered} is there: move it away")
    if not local.exists():
        if start(given.profile, given.cores).wait():
            sys.exit("error: the local run failed")
        clustered.rename(local)
    run = start(given.profile, given.cores, "--cluster", CLUSTER)
    kill_one(run)
    code = run.wait()
    print(*map(" ".join, queue()), sep="\n")
    if code:
        sys.exit("error: the cluster's run failed")
    different = differing(local / "results", clustered / "results")
    print(f"{len(list(clustered.glob('results/*/*.parquet')))} records, of which {len(different)} differ", *different, sep="\n")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
