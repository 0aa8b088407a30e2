"""Whole runs of a tiny profile that are disturbed: each comes to the end of an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests import houses
from tests.faults import fault
from tests.faults.test_disk import a_small_disk
from tests.faults.test_network import DEAD, WITHOUT_NETWORK

SAME_END = "the same claims, figures and records as an undisturbed run; nothing is left over"
# A network of one's own that is not connected to anything; kernels talk to each other on it.
LOOP = "import fcntl, os, socket, struct, sys; s = socket.socket(); "
LOOP += "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 1)); os.execvp(sys.argv[1], sys.argv[1:])"

# Whatever has started the tests may have told them to ignore it.
AS_FROM_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])",
)


def finish(run: subprocess.Popen) -> str:
    """Its output, once it has come to its end without an error."""
    out, err = run.communicate()
    assert run.returncode == 0, err[-2000:]
    return out


def inside(house: Path) -> list[psutil.Process]:
    """The processes that work there."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if Path(process.cwd()).is_relative_to(house) else []
        except (psutil.Error, OSError):
            continue
    return found


def check_end(house: Path, whole: Path) -> None:
    """Everything is there, the same as in an undisturbed run, and nothing else."""
    assert houses.produced(house) == houses.produced(whole)
    for path in houses.records(house):
        assert pq.read_table(path).equals(pq.read_table(whole / path.relative_to(house))), path
    names = [{str(path.relative_to(one)) for path in (one / "runs").rglob("*")} for one in (house, whole)]
    assert names[0] == names[1]
    for _ in range(50):  # kernels notice within a second that they are alone
        if not inside(house):
            return
        time.sleep(0.2)
    pytest.fail(f"still at work: {[process.cmdline() for process in inside(house)]}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run: the copy of the project that it is in, and how long it took."""
    house, start = houses.build(tmp_path_factory.mktemp("runs") / "whole"), time.monotonic()
    finish(houses.start(house))
    return house, time.monotonic() - start


@pytest.fixture
def house(tmp_path):
    return houses.build(tmp_path / "house")


@fault("killed", SAME_END, 0, 10)
def test_a_killed_run(times, request, house):
    """SIGKILL of all its processes at random moments of a run, one start after the other"""
    whole, seconds = request.getfixturevalue("whole")
    dice, cut = random.Random(0), 0
    for _ in range(times):
        if (house / "runs" / "smoke" / "REPORT.md").exists():  # there is nothing left to be cut
            shutil.rmtree(house / "runs")
        run = houses.start(house)
        time.sleep(dice.uniform(0.1, 0.5) * seconds)
        cut += run.poll() is None
        houses.kill(run)
    assert cut > times / 2
    finish(houses.start(house))
    check_end(house, whole)


@fault("killed", "one line says so, and that memory may be short; the same command goes on from there", 0, 1)
def test_a_killed_worker(times, request, house):
    """SIGKILL of one of the workers that share the crafting, as a system that is short of memory does"""
    whole, _ = request.getfixturevalue("whole")
    run, workers = houses.start(house), []
    while not (workers and houses.records(house)):
        assert run.poll() is None
        workers = [process for process in inside(house) if "spawn_main" in " ".join(process.cmdline())]
        time.sleep(0.05)
    workers[0].kill()
    out, err = run.communicate()
    assert run.returncode == 1
    assert "error: a worker was ended by SIGKILL" in out + err
    finish(houses.start(house))
    check_end(house, whole)


@fault("interrupted", "one line; nothing goes on working; the same command goes on from there", 0, 1)
def test_an_interrupted_run(times, request, house):
    """SIGINT, as of Ctrl-C, once the first records are there"""
    whole, _ = request.getfixturevalue("whole")
    run = houses.start(house, *AS_FROM_A_TERMINAL)
    while not houses.records(house):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate()
    assert run.returncode == 1
    assert err.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert not [line for line in err.splitlines() if "Traceback" in line or "KeyboardInterrupt" in line]
    kept = houses.records(house)
    time.sleep(2)
    assert not inside(house)
    assert houses.records(house) == kept
    finish(houses.start(house))
    check_end(house, whole)


@fault("two at once", SAME_END, 0, 1)
def test_two_runs_at_once(times, request, house):
    """A run started twice at once in one folder"""
    whole, _ = request.getfixturevalue("whole")
    both = [houses.start(house) for _ in range(2)]
    outs = [run.communicate() for run in both]
    assert [run.returncode for run in both] == [0, 0], outs
    check_end(house, whole)


@fault("no network", SAME_END, 0, 1)
def test_a_run_without_network(times, request, house):
    """A run without any network, with a dead proxy in the environment"""
    whole, _ = request.getfixturevalue("whole")
    if subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody take the network away")

    finish(houses.start(house, *WITHOUT_NETWORK, sys.executable, "-c", LOOP, **DEAD))
    check_end(house, whole)


@fault("full disk", "one line says that there is no room; with room, the same end as an undisturbed run", 0, 1)
def test_a_run_on_a_full_disk(times, request, house):
    """A run into a disk that is full soon, then into one that may not be written, then into a larger one"""
    whole, _ = request.getfixturevalue("whole")
    (house / "runs").mkdir()
    with a_small_disk(house / "runs", "60k"):
        for option, reason in (("size=60k", "No space left on device"), ("ro", "Read-only file system")):
            subprocess.run(["mount", "-o", f"remount,{option}", house / "runs"], check=True)
            run = houses.start(house)
            out, err = run.communicate()
            assert run.returncode == 1
            assert reason in out + err
            assert err.splitlines()[-1].startswith("error: ")
        subprocess.run(["mount", "-o", "remount,rw,size=64m", house / "runs"], check=True)
        finish(houses.start(house))
        check_end(house, whole)


def redated(house: Path, seconds: float) -> None:
    """Every file of the project, and of its runs, as if written then."""
    for path in house.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path, (time.time() + seconds, time.time() + seconds))


@fault("dates", "nothing is done again", 0, 3)
def test_dates(times, request, tmp_path):
    """Files of the project dated anew by git checkout; all files from tomorrow, as after a clock set back; all from 1980"""
    whole, _ = request.getfixturevalue("whole")
    house = tmp_path / "copy"
    shutil.copytree(whole, house, copy_function=shutil.copy2)
    made = houses.records(house) | {path: path.stat().st_ino for path in house.glob("runs/smoke/notebooks/*")}
    assert len(made) > 10
    for part in ("checkpoints", "dynlib", "notebooks", "workflow"):
        for path in (house / part).rglob("*"):
            path.touch()
    finish(houses.start(house))
    for seconds in (86_400, 3.2e8 - time.time()):
        redated(house, seconds)
        finish(houses.start(house))
    assert {path: path.stat().st_ino for path in made} == made
    check_end(house, whole)


@fault("dates", "the lost file is made again, and nothing else; the same end as an undisturbed run", 0, 1)
def test_a_clock_set_back(times, request, tmp_path):
    """A lost record, where all files are from tomorrow"""
    whole, _ = request.getfixturevalue("whole")
    house = tmp_path / "copy"
    shutil.copytree(whole, house, copy_function=shutil.copy2)
    redated(house, 86_400)
    before = houses.records(house)
    lost = next(iter(before))
    lost.unlink()
    finish(houses.start(house))
    changed = {path.name.split(".")[0] for path, file in houses.records(house).items() if file != before[path]}
    assert changed == {lost.name.split(".")[0]}
    check_end(house, whole)


@fault("damaged files", "refused by name, made again, or read by nothing", 0, 6)
def test_a_run_over_damaged_records(times, request, tmp_path):
    """Records of a run that are cut short, or have a byte changed, before it is started again"""
    whole, _ = request.getfixturevalue("whole")
    house = tmp_path / "copy"
    shutil.copytree(whole, house, copy_function=shutil.copy2)
    dice, found = random.Random(0), sorted(houses.records(house))
    for number, file in enumerate(dice.sample(found, times)):
        content = bytearray(file.read_bytes())
        if number % 2:
            content = content[: dice.randrange(len(content))]
        else:
            content[dice.randrange(4, len(content) // 2)] ^= 1
        file.write_bytes(content)
        (house / "runs" / "smoke" / "results" / "claims.csv").unlink()
        run = houses.start(house)
        out, err = run.communicate()
        assert run.returncode == 0 or f"{file.name} is damaged" in out + err
        if file.read_bytes() == bytes(content):  # refused, or nothing has read it
            file.unlink()
            finish(houses.start(house))
    check_end(house, whole)
