"""Attacks on multi-exit networks, one a file. Images lie in [0, 1]; settings are keyword-only."""

from dynlib.attacks.base import Attack, AttackResult, Iterative
from dynlib.attacks.cw import CarliniWagner
from dynlib.attacks.dimifgsm import DIMIFGSM
from dynlib.attacks.early import EarlyAttack, EarlyPGD
from dynlib.attacks.external import AutoAttack, External, Foolbox
from dynlib.attacks.fgsm import FGSM
from dynlib.attacks.goals import GOALS
from dynlib.attacks.losses import LOSSES
from dynlib.attacks.mifgsm import MIFGSM
from dynlib.attacks.pgd import PGD

ATTACKS: dict[str, type[Attack | CarliniWagner]] = {attack.name: attack for attack in (FGSM, PGD, MIFGSM, DIMIFGSM, CarliniWagner)}

__all__ = [
    "ATTACKS",
    "DIMIFGSM",
    "FGSM",
    "GOALS",
    "LOSSES",
    "MIFGSM",
    "PGD",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "CarliniWagner",
    "EarlyAttack",
    "EarlyPGD",
    "External",
    "Foolbox",
    "Iterative",
]
