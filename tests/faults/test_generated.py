"""Generated cases: whatever network, images, attack, loss, goal, mechanism and design, these hold."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dynlib import records
from dynlib.analysis.design import Design, evaluate
from dynlib.analysis.measured import costs as costs_of
from dynlib.attacks import ATTACKS, GOALS, LOSSES, Attack, EarlyAttack
from dynlib.attacks.early import EarlyPGD
from dynlib.attacks.losses import EARLY_VARIANTS, get_loss
from dynlib.mechanisms import (
    FALL_BACKS,
    Answers,
    ConfidenceExit,
    Decision,
    EntropyExit,
    Mechanism,
    PatienceExit,
    ThresholdPerExit,
)
from dynlib.mechanisms.base import STEPS, shares
from dynlib.networks.identity import Network
from tests.conftest import small_network
from tests.faults import fault
from tests.test_mechanisms import IMAGES, LOGITS, NETS

NETWORK = Network("cifar10", "resnet56")  # of whose designs stored answers are read
SMALL = small_network(3)


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


@fault("generated cases", "decided the same from stored answers, from logits and by really skipping, in any batches", 500, 2500)
def test_decisions(times):
    """A network, a mechanism, an order and a size of batches, images in another memory layout"""
    sizes = st.sampled_from(sorted(NETS)).flatmap(lambda n: st.tuples(st.just(n), mechanisms(n)))

    @generated(times, case=sizes, batch=st.integers(1, 24), order=st.permutations(range(24)), last=st.booleans())
    def holds(case, batch, order, last):
        n_exits, mechanism = case
        net, answers = NETS[n_exits], Answers.of(LOGITS[n_exits])
        assume(far_from_the_border(answers, mechanism) or isinstance(mechanism, PatienceExit))
        expected = mechanism.decide(answers, net.macs)
        order = torch.tensor(order)
        stored = Answers(answers.label, *(shares((part * STEPS).round()) for part in list(vars(answers).values())[1:]))
        layout = torch.channels_last if last else torch.contiguous_format
        parts = [mechanism.run(net, IMAGES[chosen].contiguous(memory_format=layout)) for chosen in order.split(batch)]
        for name in Decision._fields:
            wanted = getattr(expected, name)
            assert getattr(mechanism.decide(stored, net.macs), name).equal(wanted), name
            assert getattr(mechanism.decide(answers.images(order), net.macs), name).equal(wanted[order]), name
            assert torch.cat([getattr(part, name) for part in parts]).equal(wanted[order]), name
        exits, depths = zip(*by_hand(answers, mechanism), strict=True)
        assert expected.exit.tolist() == list(exits)
        assert expected.cost.tolist() == net.macs[list(depths)].tolist()


@fault("generated cases", "evaluated from stored answers as exit by exit by hand; costs grow with depth", 400, 2000)
def test_designs(times):
    """Any choice of exits with any mechanism, and any answers"""

    @generated(times, design=designed(len(costs_of(NETWORK))), seed=st.integers(0, 10**6), sure=st.floats(0.1, 30))
    def holds(design, seed, sure):
        exits, mechanism = design
        answers = Answers.of(sure * torch.randn(len(costs_of(NETWORK)), 16, 10, generator=tensors(seed)))
        found = evaluate(NETWORK, answers, Design(exits, mechanism))
        kept = answers.exits(list(exits))
        places, depths = map(torch.tensor, zip(*by_hand(kept, mechanism), strict=True))
        assert found.exit.equal(torch.tensor(exits)[places])
        assert found.label.equal(kept.label.gather(0, places[None])[0])
        order = depths.argsort()
        assert ((found.cost[order].diff() > 0) == (depths[order].diff() > 0)).all()  # who runs deeper costs more
        assert (found.cost[order].diff() >= 0).all()
        assert (found.cost <= costs_of(NETWORK)[torch.tensor(exits)[depths]]).all()  # heads that are left out are not paid for


@fault("generated cases", "each image's loss is finite and its own, whatever the batch, the order and the layout", 300, 1500)
def test_losses(times):
    """Any loss on any logits, also very large ones"""
    names = st.sampled_from(
        [*LOSSES, *EARLY_VARIANTS, "exit=1", "final/margin", "taken/margin", "answering/margin", "average/margin"]
    )
    given = {"case": mechanisms(3), "seed": st.integers(0, 10**6), "sure": st.floats(0.01, 1000)}

    @generated(times, name=names, split=st.integers(1, 7), order=st.permutations(range(8)), **given)
    def holds(name, case, seed, sure, split, order):
        logits = sure * torch.randn(3, 8, 10, generator=tensors(seed))
        labels = torch.randint(0, 10, (8,), generator=tensors(seed))
        for loss in get_loss(name).candidates(SMALL):
            whole = loss(logits.requires_grad_(), labels, case)
            (gradient,) = torch.autograd.grad(whole.sum(), logits)
            assert whole.shape == (8,)
            assert torch.isfinite(whole).all()
            assert torch.isfinite(gradient).all()
            logits = logits.detach()
            strange = logits.transpose(0, 2).contiguous().transpose(0, 2)
            parts = [loss(strange[:, chosen], labels[chosen], case) for chosen in torch.tensor(order).split(split)]
            torch.testing.assert_close(torch.cat(parts), whole.detach()[order], rtol=1e-4, atol=1e-5 * sure)


@fault("generated cases", "what the first exits show for sure is so; each image for itself, as by hand", 300, 1500)
def test_goals(times):
    """Any goal on any logits, seen exit by exit"""

    @generated(
        times, name=st.sampled_from(list(GOALS)), mechanism=mechanisms(4), seed=st.integers(0, 10**6), sure=st.floats(0.1, 20)
    )
    def holds(name, mechanism, seed, sure):
        logits = sure * torch.randn(4, 12, 3, generator=tensors(seed))
        labels, goal = torch.randint(0, 3, (12,), generator=tensors(seed)), GOALS[name]
        reached = goal.reached(logits, labels, mechanism)
        assert reached.tolist() == success(name, logits, labels, mechanism)
        for seen in range(1, 5):
            assert not (goal.noticed(logits[:seen], labels, mechanism, 4) & ~reached).any()
        assert goal.noticed(logits, labels, mechanism, 4).equal(reached)
        for i in range(12):
            assert goal.reached(logits[:, i : i + 1], labels[i : i + 1], mechanism).equal(reached[i : i + 1])


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


@pytest.mark.filterwarnings("ignore:.*gradient was zero")
@fault(
    "generated cases",
    "stays in its ball and in [0, 1]; its success is so when checked again; no batch or layout matters",
    300,
    1500,
)
def test_attacks(times):
    """Any attack with any loss, goal, mechanism, radius, steps, precision and seed"""

    @generated(times, attack=attacks(), seed=st.integers(0, 10**6), batch=st.integers(1, 4), last=st.booleans())
    def holds(attack, seed, batch, last):
        images = torch.rand(batch, 3, 32, 32, generator=tensors(seed)).mul(1.2).clamp(0, 1)  # some pixels at the border
        with torch.no_grad():
            own = SMALL(images)[-1].argmax(dim=-1)
        labels = own if attack.own_labels else torch.randint(0, 10, (batch,), generator=tensors(seed))
        result = attack(SMALL, images, labels)
        moved = result.adversarial - images
        assert result.adversarial.dtype == torch.float32
        assert result.adversarial.min() >= 0
        assert result.adversarial.max() <= 1
        assert moved.abs().max() <= (attack.eps if isinstance(attack, Attack) else 1) + 1e-6
        if isinstance(attack, Attack):
            most = attack.steps * (SMALL.n_exits if attack.loss == "max_average" else 1)
            assert (result.steps <= most).all()
            assert attack.early_stop or (result.steps == most).all()
            assert (result.macs > 0).all()
        with torch.no_grad():
            logits = SMALL(result.adversarial)
        assert result.reached.tolist() == success(attack.goal, logits, labels, attack.mechanism)
        layout = torch.channels_last if last else torch.contiguous_format
        one = slice(batch - 1, batch)
        alone = attack(SMALL, images[one].contiguous(memory_format=layout), labels[one]).adversarial
        # A sign flips where a gradient is 0 but for rounding, and mixed precision rounds more.
        same = (alone - result.adversarial[one]).abs() < 1e-4
        assert same.double().mean() > (0.5 if getattr(attack, "precision", "") == "bfloat16" else 0.99)


@fault("generated cases", "read as they were written", 200, 1000)
def test_records(times, tmp_path):
    """Records of any network, attack and numbers within their ranges"""
    exits = st.sampled_from(["all", "none", "2+4"])
    networks = st.builds(Network, st.just("cifar10"), st.sampled_from(["resnet56", "vgg16"]), exits)
    numbers = {"n": st.integers(1, 40), "seed": st.integers(0, 10**6), "blocks": st.integers(1, 3)}
    kinds = st.sampled_from([*records.SCHEMAS])
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
    extremes = st.sampled_from([0, 1, 2**31 - 1, 2**40])

    @generated(times, source=networks, target=networks, name=names, largest=extremes, kind=kinds, **numbers)
    def holds(source, target, name, largest, kind, n, seed, blocks):
        rng = np.random.default_rng(seed)
        written = [block(rng, kind, source, target, f"{name}{k}", n, largest) for k in range(blocks)]
        about = {"settings": {"images": n}, "weights": {}, "note": name}
        file = records.write(tmp_path, kind, source, written, about)
        ((_, table),) = records.read(tmp_path, kind, {"note": name})
        file.unlink()
        found = table.to_pandas()
        for column in found:
            values = np.concatenate([np.broadcast_to(rows[column], n) for rows in written])
            if column in records.FIXED_POINT:
                values = (values * STEPS).round()
            assert (found[column].to_numpy() == values.astype(found[column].to_numpy().dtype)).all(), column


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
