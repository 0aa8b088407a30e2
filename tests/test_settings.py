"""Settings of another library's types become plain ones; all else is refused, before anything runs."""

import math
from dataclasses import dataclass, fields
from typing import get_type_hints

import numpy as np
import pytest
import torch

from dynlib.attacks import ATTACKS
from dynlib.campaigns import plain
from dynlib.mechanisms import MECHANISMS, ConfidenceExit, PatienceExit, ThresholdPerExit
from dynlib.networks.identity import Network

NEEDED = {"thresholds": {"thresholds": (0.5,)}, "entropy": {"threshold": 0.5}, "patience": {"patience": 1}}
OWNERS = {**MECHANISMS, **ATTACKS, "network": Network}
NEEDED |= {"network": {"dataset": "cifar10", "model": "resnet56"}}
WRONG = {
    int: [1.5, 2.0, "2", None, math.nan, [1], torch.tensor([1, 2])],
    float: ["0.5", "8/255", None, math.nan, math.inf, [0.5], torch.tensor([0.5, 0.5])],
    float | None: ["0.5", math.nan, math.inf, [0.5]],
    int | None: ["5", 1.5, [5]],
    bool: ["no", "False", None, 2, [True]],
    str: [1, None, torch.float32, ["final"]],
    tuple[float, ...]: [0.5, "ab", [None], [0.5, math.nan], None],
    tuple[str, ...]: ["apgd-ce", 3, [1], None],
}
SETTINGS = [
    pytest.param(owner, NEEDED.get(name, {}), field.name, get_type_hints(owner)[field.name], id=f"{name}-{field.name}")
    for name, owner in OWNERS.items()
    for field in fields(owner)
]


@pytest.mark.parametrize(("owner", "needed", "name", "kind"), SETTINGS)
def test_every_setting_refuses_what_it_cannot_be(owner, needed, name, kind):
    for value in WRONG.get(kind, ["confidence", None, ConfidenceExit]):
        with pytest.raises(ValueError, match=rf"^{name} .*: need (a|True)") as error:
            owner(**needed | {name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("owner", "needed", "name", "kind"), SETTINGS)
def test_every_setting_takes_numbers_of_any_kind(owner, needed, name, kind):
    usual = getattr(owner(**needed), name)
    if type(usual) not in (int, float, bool):
        return
    for convert in (np.asarray, lambda x: np.asarray(x)[()], lambda x: torch.as_tensor(np.asarray(x))):
        made = owner(**needed | {name: convert(usual)})
        assert getattr(made, name) == usual
        assert type(getattr(made, name)) is type(usual)


def test_records_keep_plain_settings():
    assert plain(ThresholdPerExit(np.array([0.5, 0.75])), "mechanism") == {"mechanism": "thresholds", "thresholds": [0.5, 0.75]}
    assert plain(PatienceExit(np.int64(2)), "mechanism") == {"mechanism": "patience", "patience": 2}


@pytest.mark.parametrize("seed", [2**32, -(2**31) - 1, 2**70])
@pytest.mark.parametrize("attack", [attack for attack in ATTACKS.values() if "seed" in {f.name for f in fields(attack)}])
def test_seeds_that_some_generator_refuses(attack, seed):
    with pytest.raises(ValueError, match=r"^seed .* is outside"):
        attack(seed=seed)


def test_one_of_anybodys_own_is_settled_too():
    @dataclass(frozen=True, kw_only=True)
    class Mine(ATTACKS["pgd"]):
        strength: float = 1.0
        choice: object = None

    assert Mine(strength=np.float32(2), choice="any").strength == 2.0
    with pytest.raises(ValueError, match="strength '2': need a finite number"):
        Mine(strength="2")
