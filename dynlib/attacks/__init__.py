"""Attacks on multi-exit networks, one a file. Images lie in [0, 1]; settings are keyword-only."""

from dynlib.attacks.base import Attack, Iterative
from dynlib.attacks.clean import Clean
from dynlib.attacks.cw import CarliniWagner
from dynlib.attacks.dimifgsm import DIMIFGSM
from dynlib.attacks.early import EarlyAttack, EarlyPGD
from dynlib.attacks.external import AutoAttack, External, Foolbox
from dynlib.attacks.fgsm import FGSM
from dynlib.attacks.goals import GOALS
from dynlib.attacks.losses import LOSSES
from dynlib.attacks.mifgsm import MIFGSM
from dynlib.attacks.pgd import PGD
from dynlib.attacks.result import AttackResult

AnyAttack = Attack | CarliniWagner | Clean | EarlyAttack | External
# By name, as profiles and records call them; another attack is one more entry.
ATTACKS: dict[str, type[AnyAttack]] = {
    attack.name: attack
    for attack in (Clean, FGSM, PGD, MIFGSM, DIMIFGSM, CarliniWagner, EarlyPGD, EarlyAttack, Foolbox, AutoAttack)
}

__all__ = [
    "ATTACKS",
    "DIMIFGSM",
    "FGSM",
    "GOALS",
    "LOSSES",
    "MIFGSM",
    "PGD",
    "AnyAttack",
    "Attack",
    "AttackResult",
    "AutoAttack",
    "CarliniWagner",
    "Clean",
    "EarlyAttack",
    "EarlyPGD",
    "External",
    "Foolbox",
    "Iterative",
]
