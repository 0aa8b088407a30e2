"""Generated cases: whatever network, images, attack, loss, goal, mechanism and design, these hold."""

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st

from dynlib import records
from dynlib.analysis.design import Design, evaluate
from dynlib.analysis.measured import costs as costs_of
from dynlib.attacks import GOALS, LOSSES, Attack
from dynlib.attacks.losses import EARLY_VARIANTS, get_loss
from dynlib.mechanisms import Answers, Decision, PatienceExit
from dynlib.mechanisms.base import STEPS, shares
from dynlib.networks.identity import Network
from dynlib.records import FIXED_POINT
from tests.conftest import small_network
from tests.faults import fault
from tests.faults.cases import attacks, block, by_hand, designed, far_from_the_border, generated, mechanisms, success, tensors
from tests.test_mechanisms import IMAGES, LOGITS, NETS

NETWORK = Network("cifar10", "resnet56")  # of whose designs stored answers are read
SMALL = small_network(3)


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
        stored = Answers(answers.label, *(shares((getattr(answers, name) * STEPS).round()) for name in FIXED_POINT))
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
        # A sign flips where a gradient is 0 except for rounding, and mixed precision rounds more.
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
