"""Generated cases: what they are drawn from, and what happens to them by hand, image by image."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlib import records
from dynlib.attacks import ATTACKS, GOALS, LOSSES, Attack, EarlyAttack, EarlyPGD
from dynlib.attacks.losses import EARLY_VARIANTS
from dynlib.mechanisms import (
    FALL_BACKS,
    AgreementExit,
    Answers,
    ConfidenceExit,
    EntropyExit,
    Mechanism,
    PatienceExit,
    ThresholdPerExit,
)
from dynlib.mechanisms.base import STEPS


def generated(times: int, **strategies):
    """Tries a function on so many cases; the same ones each time."""

    def tried(holds):
        count = SimpleNamespace(cases=0)

        @settings(max_examples=times, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(**strategies)
        def counted(**case):
            holds(**case)
            count.cases += 1

        counted()
        assert count.cases >= times

    return tried


thresholds = st.floats(0.05, 0.95)


def mechanisms(n_exits: int) -> st.SearchStrategy[Mechanism]:
    return st.one_of(
        st.builds(ConfidenceExit, thresholds, st.sampled_from(FALL_BACKS)),
        st.builds(EntropyExit, thresholds, st.sampled_from(FALL_BACKS)),
        st.builds(PatienceExit, st.integers(1, 4)),
        st.builds(AgreementExit, thresholds),
        st.builds(ThresholdPerExit, st.tuples(*[st.floats(0.1, 1)] * (n_exits - 1))),
    )


def designs(n_exits: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Choices of exits, the final one last."""
    return st.sets(st.integers(0, n_exits - 2)).map(lambda early: (*sorted(early), n_exits - 1))


def designed(n_exits: int) -> st.SearchStrategy[tuple[tuple[int, ...], Mechanism]]:
    return designs(n_exits).flatmap(lambda exits: st.tuples(st.just(exits), mechanisms(len(exits))))


def tensors(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(answers: Answers, mechanism: Mechanism) -> list[tuple[int, int]]:
    """The exit that answers each image and the deepest one that is run for it: image by image, exit by exit."""
    found, last = [], len(answers) - 1
    for i in range(answers.label.shape[1]):
        label, confidence, entropy = (getattr(answers, name)[:, i].tolist() for name in ("label", "confidence", "entropy"))
        match mechanism:
            case ConfidenceExit():
                leaves, surest = [c >= np.float32(mechanism.threshold) for c in confidence], confidence.index(max(confidence))
            case EntropyExit():
                leaves, surest = [e <= np.float32(mechanism.threshold) for e in entropy], entropy.index(min(entropy))
            case PatienceExit():
                leaves = [k >= mechanism.patience and len({*label[k - mechanism.patience : k + 1]}) == 1 for k in range(last + 1)]
            case AgreementExit():
                sure = [c >= np.float32(mechanism.threshold) for c in confidence]
                leaves = [k > 0 and sure[k] and label[k] == label[k - 1] for k in range(last + 1)]
            case ThresholdPerExit():
                leaves = [c >= np.float32(t) for c, t in zip(confidence, mechanism.thresholds, strict=False)] + [False]
        taken = leaves.index(True) if any(leaves) else None
        fall_back = surest if getattr(mechanism, "fall_back_to", "final") == "most_confident" else last
        found.append((fall_back, last) if taken is None else (taken, taken))
    return found


def far_from_the_border(answers: Answers, mechanism: Mechanism) -> bool:
    """Whether no image is so near to a threshold that another batch, which rounds otherwise, could decide otherwise."""
    measure = answers.entropy if isinstance(mechanism, EntropyExit) else answers.confidence
    limits = getattr(mechanism, "thresholds", (getattr(mechanism, "threshold", 2.0),))
    ordered = measure.sort(dim=0).values
    nearest = min((measure - limit).abs().min().item() for limit in limits) if limits else 1
    return nearest > 3 / STEPS and (len(answers) == 1 or (ordered[1:] - ordered[:-1]).min().item() > 3 / STEPS)


def success(goal: str, logits: torch.Tensor, labels: torch.Tensor, mechanism: Mechanism) -> list[bool]:
    """Whether images reach a goal, image by image."""
    answers, found = Answers.of(logits), []
    for i, (exit, depth) in enumerate(by_hand(answers, mechanism)):
        each, label = answers.label[:, i].tolist(), int(labels[i])
        early = mechanism_leaves_early(answers.images(slice(i, i + 1)), mechanism)
        found.append(
            {
                "misclassify": each[exit] != label,
                "open_surface": each[exit] != label and each[-1] == label,
                "mirror": each[exit] == label and each[-1] != label,
                "strict": label not in each[:-1] and each[-1] == label,
                "slow_down": not early and depth == len(each) - 1,
                "slow_and_wrong": not early and depth == len(each) - 1 and each[exit] != label,
            }[goal]
        )
    return found


def mechanism_leaves_early(answers: Answers, mechanism: Mechanism) -> bool:
    """Whether an image leaves before the last exit."""
    return by_hand(answers, mechanism)[0][1] < len(answers) - 1


def attacks() -> st.SearchStrategy:
    """Attacks of this library, with settings of all kinds, on networks of three exits."""

    def built(name, given):
        wanted = ATTACKS[name]
        own = {field: value for field, value in given.items() if field in {f.name for f in fields(wanted)}}
        if issubclass(wanted, EarlyPGD):
            own |= {"loss": given["early_loss"], "goal": given["early_goal"]}
        if name == "cw":
            own |= {"loss": given["plain_loss"], "steps": 3, "searches": 2}
        return wanted(**own)

    values = st.fixed_dictionaries(
        {
            "eps": st.floats(1e-3, 1),
            "loss": st.sampled_from([*LOSSES, "exit=0", "exit=1", "final/margin", "taken/margin"]),
            "plain_loss": st.sampled_from(["final", "taken", "average", "exit=1"]),
            "early_loss": st.sampled_from(["early", *EARLY_VARIANTS]),
            "early_goal": st.sampled_from(["open_surface", "strict"]),
            "goal": st.sampled_from(list(GOALS)),
            "mechanism": mechanisms(3),
            "steps": st.integers(1, 3),
            "step_size": st.none() | st.floats(1e-3, 2),
            "iterations": st.integers(1, 4),
            "alpha": st.floats(0, 40),
            "early_stop": st.booleans(),
            "precision": st.sampled_from(["float32", "bfloat16"]),
            "seed": st.integers(-5, 5),
        }
    )
    names = [name for name, attack in ATTACKS.items() if issubclass(attack, Attack | EarlyAttack) or name in ("cw", "none")]
    return st.builds(built, st.sampled_from(names), values)


def block(rng, kind, source, target, attack, n, largest) -> dict:
    """A block of records as ``craft`` makes them."""
    rows = {**records.parts("source", source), "attack": attack, "split": "test", "image": np.arange(n)}
    if kind == "answers":
        sure = {name: rng.random(n) for name in records.FIXED_POINT}
        return rows | records.parts("target", target) | {"exit": rng.integers(0, 28, n), "label": rng.integers(0, 256, n), **sure}
    flags = {name: rng.random(n) < 0.5 for name in ("reached", "stuck")}
    far = {"l2": rng.random(n) * 50, "linf": rng.random(n)}
    counts = {"truth": rng.integers(0, 256, n), "steps": min(largest, 2**31 - 1), "macs": largest}
    return rows | flags | far | counts
