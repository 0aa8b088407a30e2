"""Adding takes one place."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dynlib.files import ROOT


def test_new_data_network_mechanism_goal_and_attack_go_through_the_house(tmp_path):
    for part in ("dynlib", "workflow"):
        shutil.copytree(ROOT / part, tmp_path / "house" / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "made").mkdir()
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("extending.py")), str(tmp_path / "made")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "house"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "house" / "runs" / "mine" / "figures").iterdir()}
    assert made == {"fig9a_mine.csv", "fig9a_mine.pdf", "fig9a_mine.png"}
