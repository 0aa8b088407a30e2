"""The whole house: profiles are checked, a killed run goes on, a stale number is caught."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from dynlib.experiments import EXPERIMENTS, RESTARTS
from dynlib.files import ROOT
from workflow import run
from workflow.notebook import publish
from workflow.run import ProfileError, load_profile

NOTEBOOK = ROOT / "notebooks" / "01_transferability.ipynb"
PGD = {"name": "pgd", "losses": ["final", "average"], "eps_255": [8], "steps": 2}
TINY = {"n_images": 12, "attacks": [PGD]}


@pytest.mark.parametrize("name", ["smoke", "quick", "overnight", "paper"])
def test_shipped_profiles_are_sound(name):
    profile = load_profile(name)
    assert profile["notebooks"]
    for restart, experiment in RESTARTS.items():
        again, first = profile[restart], profile[experiment]
        assert again.keys() == first.keys()
        assert again["n_images"] == first["n_images"]  # the same images
        assert again["seed"] != first["seed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "red"}, "unknown settings 'color'"),
        ({"device": None}, "missing settings 'device'"),
        ({"networks": {"cifar10": ["resnet50"]}}, "unknown model 'resnet50'"),
        ({"transferability": {"n_image": 5}}, "unknown setting of transferability 'n_image'"),
        ({"transferability": {"n_images": "5"}}, "n_images is '5'"),
        ({"transferability": {"n_images": True}}, "n_images is True"),
        ({"transferability": {"n_images": 0}}, "need at least 1"),
        ({"transferability": {"attacks": [PGD | {"eps_255": [0]}]}}, "eps 0.0 is outside"),
        ({"transferability": {"attacks": [PGD | {"eps_255": 8}]}}, "eps_255 is 8"),
        ({"transferability": {"attacks": [PGD | {"eps": [8]}]}}, "unknown setting of transferability, attacks 'eps'"),
        ({"transferability": {"attacks": [PGD | {"losses": ["mean"]}]}}, "unknown loss 'mean'"),
        ({"transferability": {"attacks": [PGD | {"name": "deepfool"}]}}, "unknown attack 'deepfool'"),
        ({"transferability": {"attacks": [PGD | {"name": "cw"}]}}, "cw takes no eps_255"),
        ({"transferability": {"attacks": [{"name": "cw", "losses": ["final"], "steps": 5}]}}, "cw needs confidence"),
        ({"transferability": {"attacks": [PGD | {"confidence": 1.0}]}}, "pgd takes no confidence"),
        ({"transferability": {"attacks": [PGD | {"name": "fgsm"}]}}, "fgsm takes no steps"),
        ({"transferability": {"attacks": [PGD | {"steps": None}]}}, "pgd needs steps"),
        ({"efficiency": {"losses": ["mean"]}}, "unknown loss 'mean'"),
        ({"exit_design": {"attacks": [PGD | {"eps_255": [256]}]}}, "is outside"),
        ({"early_attack": {"variants": ["final"]}}, "loss 'final' does not pursue"),
        ({"early_attack": {"eps_255": [8, 300]}}, "is outside"),
        ({"published_attack": {"alphas": [-1.0]}}, "alpha -1.0 is negative"),
        ({"attack_design": {"thresholds": [1.0]}}, "threshold 1.0 is outside"),
        ({"timing": {"batches": [0]}}, "batches is .0.: need at least 1"),
        ({"outputs": {"threshold": 0.9}}, "unknown setting of outputs 'threshold'"),
        ({"restarts": {"timing": {"seed": 1}}}, "unknown restart 'timing'"),
        ({"restarts": {name: {"sed": 1} for name in RESTARTS.values()}}, "unknown setting of efficiency_restart 'sed'"),
        ({"transferability": {"threshold": 1.5}}, "threshold 1.5 is outside"),
        ({"transferability": {"other_thresholds": [0.5, 0.0]}}, "threshold 0.0 is outside"),
        ({"notebooks": {"01_transferability": {"main_eps": 8}}}, "no parameter 'main_eps'"),
        ({"notebooks": {"01_transferability": {"main_eps_255": "8"}}}, "main_eps_255 is '8', not a int"),
        ({"notebooks": {"09_nothing": {}}}, "there is no notebooks/09_nothing.ipynb"),
    ],
)
def test_bad_profiles_are_refused(monkeypatch, tmp_path, change, message):
    profile = yaml.safe_load((run.PROFILES / "quick.yaml").read_text())
    for key, value in change.items():
        profile[key] = {**profile[key], **value} if key in EXPERIMENTS else value
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump({k: v for k, v in profile.items() if v is not None or k == "recipe"}))
    monkeypatch.setattr(run, "PROFILES", tmp_path)
    with pytest.raises(ProfileError, match=f"profile changed: .*{message}"):
        load_profile("changed")


def test_a_profile_that_trains_nothing_needs_shipped_networks(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path)
    with pytest.raises(ProfileError, match="profile smoke: cifar10-resnet56-sdnn is not shipped"):
        load_profile("smoke")
    assert load_profile("paper")  # it trains what is missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "huge"], "unknown profile huge: choose one of overnight paper quick smoke"),
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
    assert all(word in done.stdout for word in ("test", "--profile", "--cores", "--dry-run"))


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
    """Makes copies of the project with a tiny profile, without its results."""

    def build(name: str) -> Path:
        copy = tmp_path / name
        for part in ("dynlib", "workflow", "notebooks", "checkpoints"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "training"))
        path = copy / "workflow" / "profiles" / "smoke.yaml"
        profile = yaml.safe_load(path.read_text())
        profile["transferability"].update(TINY)
        profile["same_backbone"].update(TINY)
        profile["efficiency"].update(n_images=12, steps=[2], losses=["taken"])
        profile["published_attack"].update(n_images=1, iterations=2)
        for experiment in ("outputs", "timing", "exit_design", "retrained", "early_attack", "attack_design"):
            profile[experiment]["n_images"] = 12
        path.write_text(yaml.safe_dump(profile))
        return copy

    return build


def start(house: Path) -> subprocess.Popen:
    command = [sys.executable, "-Es", "-m", "workflow.run", "--profile", "smoke", "--cores", "2"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=house, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def test_a_run_is_planned_in_a_folder_of_an_awkward_name_without_a_home(house):
    """With nothing of the user's, and no place in which to keep anything."""
    awkward = house("für {alle} Fälle")
    command = [sys.executable, "-Es", "-m", "workflow.environment", "workflow.run"]
    command += ["--profile", "smoke", "--cores", "1", "--dry-run"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=awkward, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "notebook_06_claims" in done.stdout


def processor_seconds() -> float:
    """Of the processes started here: unlike time on the clock, it hardly depends on what else the machine is doing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dates(house: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in house.glob("results/smoke/timings/*")}


def produced(house: Path) -> dict[str, bytes]:
    """All that must be the same, byte for byte, on a second run: everything but what was measured with a clock."""
    files = [*house.glob("figures/smoke/*"), *house.glob("results/smoke/claims/*")]
    timed = {"efficiency", "efficiency_restart", "timing"}
    for experiment in EXPERIMENTS.keys() - timed:
        files += house.glob(f"results/smoke/{experiment}/*.[cs]*")
    return {str(path.relative_to(house)): path.read_bytes() for path in files}


def test_killed_run_goes_on_to_the_same_end(house):
    whole, killed = house("whole"), house("killed")
    before = processor_seconds()
    first = start(whole)
    out, err = first.communicate()
    work = processor_seconds() - before
    assert first.returncode == 0, err
    assert "notebook-01_transferability" in out
    assert "C1  open" in out

    second = start(killed)
    done = killed / "results" / "smoke"
    while not list(done.glob("timings/*.done")):
        assert second.poll() is None
        time.sleep(0.1)
    time.sleep(2)  # it is in the middle of the next step now
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    assert 0 < len(list(done.glob("timings/*.done"))) < len(list(whole.glob("results/smoke/timings/*.done")))
    finished = [stamp.stem.split("-", maxsplit=1) for stamp in done.glob("timings/*.done")]
    kept = {path: path.stat().st_mtime for experiment, name in finished for path in done.glob(f"{experiment}/{name}.[cs]*")}
    assert kept
    third = start(killed)
    _, err = third.communicate()
    assert third.returncode == 0, err
    assert all(path.stat().st_mtime == date for path, date in kept.items())

    expected = produced(whole)
    assert produced(killed) == expected
    assert len([name for name in expected if name.endswith(".pdf")]) == 29

    before, stamps = processor_seconds(), dates(whole)
    again = start(whole)
    again.communicate()
    assert again.returncode == 0
    assert dates(whole) == stamps  # nothing was done
    assert processor_seconds() - before < work / 8
    assert produced(whole) == expected

    (whole / "results" / "smoke" / "transferability" / "cifar10-resnet56-sdnn.csv").unlink()
    other = whole / "results" / "smoke" / "transferability" / "cifar10-resnet56-dynn.csv"
    date = other.stat().st_mtime
    last = start(whole)
    last.communicate()
    assert last.returncode == 0
    assert other.stat().st_mtime == date
    assert produced(whole) == expected


def test_failure_keeps_the_old_results_and_says_why(house):
    broken = house("broken")
    old = broken / "results" / "smoke" / "transferability" / "cifar10-resnet56-dynn.csv"
    old.parent.mkdir(parents=True)
    old.write_text("the old results\n")
    weights = broken / "checkpoints" / "cifar10-resnet56-dynn.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = start(broken)
    out, err = run.communicate()
    assert run.returncode != 0
    assert "cifar10-resnet56-dynn.safetensors is damaged" in out + err, err
    assert old.read_text() == "the old results\n"


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
