"""The whole house: profiles are checked, a killed run goes on, a stale number is caught, what is published stays as it is."""

import os
import re
import subprocess
import sys
import time

import nbformat
import pytest
import yaml

from dynlib import profiles
from dynlib.files import PROFILES, ROOT
from dynlib.profiles import ProfileError
from tests.houses import build, kill, produced, records, start
from workflow import craft, environment, run
from workflow.notebook import publish

NOTEBOOK = ROOT / "notebooks" / "01_transferability.ipynb"


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_shipped_profiles_can_be_run(name):
    run.check(profiles.load(name))


@pytest.mark.parametrize(
    ("notebooks", "message"),
    [
        ({"01_transferability": {"main_eps": 8}}, "01_transferability.ipynb has no parameter 'main_eps' to set"),
        ({"01_transferability": {"run": "other"}}, "has no parameter 'run' to set"),
        ({"09_nothing": {}}, "there is no notebooks/09_nothing.ipynb"),
    ],
)
def test_wrong_notebooks_are_named(tmp_path, notebooks, message):
    profile = yaml.safe_load((PROFILES / "published.yaml").read_text())
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(profile | {"notebooks": notebooks}))
    with pytest.raises(ProfileError, match=message):
        run.check(profiles.load("changed", tmp_path))


def test_a_library_that_a_profile_needs_is_looked_for_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ProfileError, match=r"published: campaigns\.strength: pyautoattack is not installed"):
        run.check(profiles.load("published"))


def test_a_profile_that_trains_nothing_needs_shipped_networks(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path)
    with pytest.raises(ProfileError, match="profile smoke: cifar10-resnet56-sdnn-seed1 is not shipped"):
        run.check(profiles.load("smoke"))
    run.check(profiles.load("paper"))  # it trains what is missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "huge"], "unknown profile huge: choose one of paper published quick smoke"),
        (["--cores", "0"], "need a positive number"),
        (["--fast"], "unknown argument --fast"),
    ],
)
def test_bad_arguments_of_run_all(arguments, message):
    done = subprocess.run(["./run_all.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {message}" or message in done.stderr.splitlines()[-1]


def test_help():
    done = subprocess.run(["./run_all.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("figures", "test", "--profile", "--cores", "--dry-run"))


def test_data_that_are_not_here_are_named(monkeypatch, tmp_path):
    """Without CIFAR-100, the cells of CIFAR-10 are measured on the package's sample."""
    monkeypatch.setenv("DYNLIB_DATA", str(tmp_path))
    quick = profiles.load("quick")
    assert run.notices(quick) == [
        "CIFAR-100 is not here, so its networks are not measured (`python -m dynlib data cifar100` fetches it)"
    ]
    assert all(craft.measurable(quick, campaign, "cifar10") for campaign in quick.campaigns.values())


def nbval(path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_stale_number_fails(tmp_path):
    """A copy of the notebook in which one digit of one checked cell's output is another."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    checked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 3
    output = checked[-1].outputs[0]
    digit = next(character for character in output.text if character in "123456789")
    output.text = output.text.replace(digit, str(int(digit) % 9 + 1), 1)
    nbformat.write(notebook, tmp_path / "stale.ipynb")
    done = nbval(tmp_path / "stale.ipynb")
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout


def test_notebooks_are_committed_with_outputs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), path
        assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


@pytest.fixture
def house(tmp_path):
    """Makes copies of the project with a tiny profile."""
    return lambda name: build(tmp_path / name)


def test_a_run_is_planned_in_a_folder_of_an_awkward_name_without_a_home(house):
    """With nothing of the user's, and no place in which to keep anything."""
    awkward = house("für {alle} Fälle")
    command = [sys.executable, "-Es", "-m", "workflow.environment", "workflow.run"]
    command += ["--profile", "smoke", "--cores", "1", "--dry-run"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=awkward, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "09_claims" in done.stdout


def test_on_a_cluster_each_step_is_a_job(house):
    copy = house("cluster")
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--config", "run=smoke", "spread=yes"]
    command += ["--cores", "2", "--dry-run", "--printshellcmds"]
    plan = subprocess.run(command, cwd=copy, env=environment.clean(os.environ), capture_output=True, text=True)
    jobs = re.findall(r"python -m workflow\.craft smoke (\S+) (\S+) --cores 1\n", plan.stdout)
    steps = craft.steps(profiles.load("smoke", copy / "workflow" / "profiles"))
    assert sorted(jobs) == sorted((step.campaign.name, step.source.id) for step in steps), plan.stdout + plan.stderr
    campaign, source = jobs[0]
    subprocess.run([sys.executable, "-m", "workflow.craft", "smoke", campaign, source], cwd=copy, check=True)
    assert {(path.parent.name, path.name.split(".")[0]) for path in records(copy)} == {(campaign, source)}


def test_the_plugin_knows_the_cluster_profile(house):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    command = [sys.executable, "-Es", "-m", "workflow.run", "--profile", "smoke", "--cores", "2", "--dry-run"]
    done = subprocess.run([*command, "--cluster", "workflow/cluster/slurm"], cwd=house("slurm"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "campaign=clean, source=" in done.stdout


def test_killed_run_goes_on_to_the_same_end(house):
    whole, killed = house("whole"), house("killed")
    committed = {path: path.read_bytes() for part in ("notebooks", "figures", "results") for path in (whole / part).glob("*.*")}
    first = start(whole)
    out, err = first.communicate()
    assert first.returncode == 0, err
    assert "C1   yours      open: " in out
    assert "C1   published  " in out
    assert committed == {path: path.read_bytes() for path in committed}  # a run changes nothing that is published
    assert {path.name for path in (whole / "runs" / "smoke").iterdir()} >= {"REPORT.md", "figures", "notebooks", "results"}

    second = start(killed)
    while not records(killed):
        assert second.poll() is None
        time.sleep(0.1)
    time.sleep(2)  # it is in the middle of the next step now
    kill(second)
    found = records(killed)
    step = {path: path.name.split(".")[0] for path in found}
    both = [(path.parent, step[path]) for path in found]
    kept = {path: file for path, file in found.items() if both.count((path.parent, step[path])) == 2}
    assert 0 < len(kept) < len(records(whole))
    third = start(killed)
    _, err = third.communicate()
    assert third.returncode == 0, err
    assert {path: path.stat().st_ino for path in kept} == kept
    assert produced(killed) == produced(whole)

    before = records(whole)
    again = start(whole)
    again.communicate()
    assert again.returncode == 0
    assert records(whole) == before  # nothing was done
    lost = next(iter(before))
    lost.unlink()
    last = start(whole)
    last.communicate()
    assert last.returncode == 0
    changed = {path for path, file in records(whole).items() if file != before[path]}
    assert {(path.parent, path.name.split(".")[0]) for path in changed} == {(lost.parent, lost.name.split(".")[0])}


def test_failure_says_why(house):
    broken = house("broken")
    weights = broken / "checkpoints" / "cifar10-resnet56-dynn.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = start(broken)
    out, err = run.communicate()
    assert run.returncode != 0
    assert "cifar10-resnet56-dynn.safetensors is damaged" in out + err, err


def test_how_prints_are_cut_leaves_no_trace(tmp_path):
    """A slow moment of the machine cuts one cell's prints into several outputs."""
    published = []
    for number, texts in enumerate((["one\n", "\n", "two\n"], ["one\n\ntwo\n"])):
        outputs = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in texts]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", id="only", outputs=outputs)])
        nbformat.write(notebook, tmp_path / f"{number}.ipynb")
        publish(tmp_path / f"{number}.ipynb", target := tmp_path / f"published-{number}.ipynb")
        published.append(target.read_bytes())
    assert published[0] == published[1]
