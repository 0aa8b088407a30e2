"""Wrong names, types and ranges in profiles and for notebooks: each is refused, with its place, before anything starts."""

import ast
import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import papermill
import pytest
import yaml

from dynlib import profiles
from dynlib.attacks import ATTACKS
from dynlib.campaigns import plain
from dynlib.files import PROFILES, ROOT
from dynlib.mechanisms import MECHANISMS, PatienceExit, ThresholdPerExit
from dynlib.profiles import ProfileError
from tests.faults import fault
from workflow import run

TEXT = yaml.safe_load((PROFILES / "published.yaml").read_text())
OWN = {"patience": PatienceExit(1), "thresholds": ThresholdPerExit((0.9,) * 6)}  # of those without defaults


def made(kind: str) -> list[dict[str, Any]]:
    """Every attack or mechanism of the library, with all its settings."""
    known = ATTACKS if kind == "attack" else MECHANISMS
    found = [OWN[name] if name in OWN else cls(0.5) if name == "entropy" else cls() for name, cls in known.items()]
    return [plain(one, kind) for one in found]


def whole() -> dict[str, Any]:
    """A profile in which every attack and mechanism of the library stands, with every field."""
    profile = copy.deepcopy(TEXT)
    profile["networks"] = [{"dataset": "cifar10", "model": "resnet56", "exits": "all", "trained": "joint"}]
    plans = made("attack") + [
        {"attack": "pgd", "mechanism": one, "eps": 0.1 + number / 10} for number, one in enumerate(made("mechanism"))
    ]
    profile["campaigns"] = {"only": {"images": {"test": 4}, "sources": [{"exits": "all"}], "attacks": plans}}
    profile["notebooks"] = {
        "00_dynamic_networks": {"threshold": 0.8, "gallery_rows": 2, "gallery_network": "cifar10-resnet56-dynn"}
    }
    return profile


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a profile, with its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key), one
        yield from places(one, (*path, key))


def free(path: tuple) -> bool:
    """Whether any value of some type may stand there: names of campaigns, and settings that belong to another library."""
    return "settings" in path or path in (("campaigns", "only"),)


def wrong(path: tuple, value: Any) -> list[Any]:
    """What may not stand in the place of a value."""
    seed = path[-1] == "seed"
    match value:
        case bool():
            return ["yes", 2, []]
        case int():
            return ["three", [], 2.5, math.nan, True] + ([] if seed else [-1])
        case float():
            return ["much", {}, -0.5, math.nan, math.inf, True]
        case str():
            return [f"{value}x", 7, [[]], ""]
        case None:
            return ["nowhere", -1, math.inf, []]
        case list():
            return ["all", 5, {"a": 1}]
        case dict():
            return ["all", 5, [5]]


def changed(profile: dict, path: tuple, value: Any, name: Any = None) -> dict:
    """With another value in a place, or under another name."""
    profile = copy.deepcopy(profile)
    at = profile
    for key in path[:-1]:
        at = at[key]
    if name is not None:
        del at[path[-1]]
    at[path[-1] if name is None else name] = value
    return profile


def refusal(check: Callable[[], object]) -> str:
    """What it says against a profile."""
    try:
        check()
    except ProfileError as error:
        return str(error)
    return ""


def faults_in(profile: dict) -> Iterator[tuple[str, dict]]:
    for path, value in places(profile):
        if free(path):
            continue
        if isinstance(path[-1], str):
            yield f"{path} under another name", changed(profile, path, value, f"{path[-1]}_")
        for other in wrong(path, value):
            yield f"{path}: {other!r}", changed(profile, path, other)


@fault("wrong parameters", "refused in one line that names the profile and the place", 200, 1040)
def test_profiles(times, tmp_path):
    """A name, a type or a range in a profile that is not possible, in every field of every attack and mechanism"""
    sound = whole()
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(sound))
    run.check(profiles.load("made", tmp_path))
    wrong_ones = list(faults_in(sound))
    for what, profile in random.Random(0).sample(wrong_ones, times):
        (tmp_path / "made.yaml").write_text(yaml.safe_dump(profile))
        profiles.load.cache_clear()
        told = refusal(lambda: run.check(profiles.load("made", tmp_path)))
        assert told.startswith("profile made: ") or ".ipynb" in told, what
        assert "\n" not in told, what


NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb"))


@fault("wrong parameters", "refused in one line that names the notebook and the parameter, before a kernel starts", 76, 76)
def test_notebooks(times):
    """A name, a type or a range of a notebook's parameter that is not possible, in every notebook"""
    done = 0
    for path in NOTEBOOKS:
        known = {name: ast.literal_eval(p["default"]) for name, p in papermill.inspect_notebook(str(path)).items() if name != "run"}
        assert known.keys() <= run.RANGES.keys()  # a new parameter needs a range
        run.check_parameters(path, known)
        cases = [("run", "smoke"), ("nothing", 1), *((name, value) for name in known for value in wrong((name,), known[name]))]
        for name, value in cases:
            with pytest.raises(ProfileError, match=rf"^{path.name}.*{name}"):
                run.check_parameters(path, known | {name: value})
            done += 1
    assert done == times
