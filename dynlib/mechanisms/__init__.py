"""Mechanisms: how a dynamic network turns its exits into one answer, and how it really skips the rest.

A new mechanism is one class with ``leaves`` and ``fall_back``; one file each.
"""

from dynlib.mechanisms.agreement import AgreementExit
from dynlib.mechanisms.base import Answers, Decision, Mechanism
from dynlib.mechanisms.confidence import FALL_BACKS, ConfidenceExit, ThresholdPerExit
from dynlib.mechanisms.deployed import Deployed
from dynlib.mechanisms.entropy import EntropyExit
from dynlib.mechanisms.patience import PatienceExit

# By name, as profiles and records call them; another mechanism is one more entry.
MECHANISMS: dict[str, type[Mechanism]] = {
    m.name: m for m in (ConfidenceExit, EntropyExit, PatienceExit, ThresholdPerExit, AgreementExit)
}

__all__ = [
    "FALL_BACKS",
    "MECHANISMS",
    "AgreementExit",
    "Answers",
    "ConfidenceExit",
    "Decision",
    "Deployed",
    "EntropyExit",
    "Mechanism",
    "PatienceExit",
    "ThresholdPerExit",
]
