from contextlib import nullcontext
from dataclasses import dataclass

import foolbox
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dynlib.attacks import ATTACKS, DIMIFGSM, FGSM, LOSSES, MIFGSM, PGD, Attack, CarliniWagner
from dynlib.attacks.losses import AtExit, Average, get_loss, margin
from dynlib.attacks.tools import uniform_noise
from dynlib.figures import SURFACE
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.identity import KINDS
from tests.conftest import small_network

EPS = 8 / 255
IN_BALL = {name: attack for name, attack in ATTACKS.items() if issubclass(attack, Attack) and not attack.own_labels}


def check_effect(attack, net, images, labels):
    """A working attack turns most of the images that the network as deployed gets right, and says truly which."""
    right = attack.mechanism.run(net, images).label == labels
    result = attack(net, images[right], labels[right])
    answers = attack.mechanism.run(net, result.adversarial).label
    assert result.reached.equal(answers != labels[right])
    assert result.reached.double().mean() > 0.6


@dataclass(frozen=True, kw_only=True)
class Idle(PGD):
    """Does nothing."""

    def start(self, images):
        return images.clone()

    def step(self, adversarial, direction):
        return adversarial


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("attack", IN_BALL.values())
def test_attacks_work_on_a_dynamic_network(dynn, sample, attack, loss):
    check_effect(attack(eps=EPS, loss=loss), dynn, sample[0][:24], sample[1][:24])


@pytest.mark.parametrize("attack", IN_BALL.values())
def test_attacks_work_on_a_static_network(sdnn, sample, attack):
    check_effect(attack(eps=EPS), sdnn, sample[0][:48], sample[1][:48])


@pytest.mark.parametrize("attack", IN_BALL.values())
def test_bfloat16_is_as_strong(dynn, sample, attack):
    """At a radius at which some images are still classified correctly; what is reached is found out in float32."""
    images, labels, steps = sample[0][:40], sample[1][:40], {} if attack is FGSM else {"steps": 4}
    exact, rough = (attack(eps=1 / 255, precision=one, **steps)(dynn, images, labels) for one in ("float32", "bfloat16"))
    assert not rough.adversarial.equal(exact.adversarial)
    assert rough.adversarial.dtype == torch.float32
    assert (rough.adversarial - images).abs().max() <= 1 / 255 + 1e-6
    assert rough.reached.equal(attack().mechanism.run(dynn, rough.adversarial).label != labels)
    assert rough.macs.equal(exact.macs)
    check_as_strong(exact, rough)


def check_as_strong(exact, rough):
    assert (exact.reached.sum() - rough.reached.sum()).abs() <= 3


def test_an_idle_attack_is_not_as_strong(dynn, sample):
    exact, idle = (kind(eps=1 / 255, steps=4)(dynn, sample[0][:40], sample[1][:40]) for kind in (PGD, Idle))
    with pytest.raises(AssertionError):
        check_as_strong(exact, idle)


def test_float32_is_float32_whatever_surrounds_it(sample):
    net, images, labels = small_network(3), sample[0][:6], sample[1][:6]
    exact = PGD(steps=3)(net, images, labels).adversarial
    with torch.autocast("cpu", torch.bfloat16):
        assert PGD(steps=3)(net, images, labels).adversarial.equal(exact)


def test_an_idle_attack_fails_that_check(dynn, sample):
    with pytest.raises(AssertionError):
        check_effect(Idle(), dynn, sample[0][:16], sample[1][:16])


@pytest.mark.parametrize("eps_255", [1, 8])
def test_fgsm_equals_foolbox(sdnn, sample, eps_255):
    images, labels = sample
    ours = FGSM(eps=eps_255 / 255)(sdnn, images[:64], labels[:64]).adversarial
    model = foolbox.PyTorchModel(sdnn.as_static(), bounds=(0, 1), device="cpu")
    _, theirs, _ = foolbox.attacks.LinfFastGradientAttack(random_start=False)(
        model, images[:64], labels[:64], epsilons=eps_255 / 255
    )
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize(("eps_255", "random_start"), [(1, False), (8, True)])
def test_pgd_equals_foolbox(sdnn, sample, eps_255, random_start):
    """At 1/255 the accuracy is somewhere in the middle, so it tells; with a random start the two draw different points."""
    images, labels = sample
    ours = PGD(eps=eps_255 / 255, steps=5, random_start=random_start)(sdnn, images, labels)
    model = foolbox.PyTorchModel(sdnn.as_static(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=5, rel_stepsize=0.25, random_start=random_start)
    _, _, fooled = attack(model, images, labels, epsilons=eps_255 / 255)
    assert ours.reached.double().mean().item() == pytest.approx(fooled.double().mean().item(), abs=0.005)


@pytest.mark.parametrize("confidence", [0.0, 2.0])
def test_cw_equals_foolbox(sdnn, sample, confidence):
    images, labels = sample[0][:16], sample[1][:16]
    ours = CarliniWagner(confidence=confidence, steps=20, searches=4)(sdnn, images, labels).adversarial
    model = foolbox.PyTorchModel(sdnn.as_static(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.L2CarliniWagnerAttack(4, 20, 0.01, confidence, initial_const=0.01, abort_early=False)
    _, (theirs,), _ = attack(model, images, labels, epsilons=[None])
    near, far = ((x - images).flatten(1).norm(dim=1) for x in (ours, theirs))
    assert far.median() > 0.05
    assert (near - far).abs().median() < 0.01 * far.median()
    assert near.mean().item() == pytest.approx(far.mean().item(), rel=0.05)


@pytest.mark.parametrize("loss", ["final", "taken", "average", "exit=1"])
def test_cw_fools_the_exits_that_its_loss_looks_at(dynn, sample, loss):
    images, labels = sample[0][:6], sample[1][:6]
    attack = CarliniWagner(loss=loss, confidence=1.0, steps=25, searches=3)
    result = attack(dynn, images, labels)
    moved = (result.adversarial - images).flatten(1).norm(dim=1) > 0
    assert moved.double().mean() > 0.6
    with torch.no_grad():
        margins = margin(dynn(result.adversarial), labels)
    depth, checks = get_loss(loss).depth(dynn, attack.mechanism, images)
    looked_at = margins if loss == "average" else margins.gather(0, depth[None])
    assert (looked_at[:, moved] <= -0.99).all()
    assert (result.steps == 75).all()
    assert result.macs.equal(checks + 2 * dynn.macs[depth] * 75)
    assert result.reached.equal(attack.mechanism.run(dynn, result.adversarial).label != labels)


def test_more_confidence_costs_more_distortion(dynn, sample):
    images, labels = sample[0][:6], sample[1][:6]
    near, far = (CarliniWagner(confidence=k, steps=25, searches=3)(dynn, images, labels).adversarial for k in (0.0, 3.0))
    both = ((near != images) & (far != images)).flatten(1).any(dim=1)
    assert both.sum() >= 3
    assert (far - images)[both].norm() > (near - images)[both].norm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"confidence": -1.0}, "negative"), ({"steps": 0}, "need positive"), ({"searches": 0}, "need positive")]
    + [({"loss": loss}, "C&W has no loss") for loss in ("max_average", "early", "final/margin")],
)
def test_cw_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        CarliniWagner(**arguments)


def test_mifgsm_by_hand():
    net, images, labels = small_network(1), torch.rand(3, 3, 32, 32), torch.tensor([1, 2, 3])
    expected, momentum = images.clone(), torch.zeros_like(images)
    for _ in range(4):
        x = expected.clone().requires_grad_()
        F.cross_entropy(net(x)[0], labels, reduction="sum").backward()
        momentum = 0.5 * momentum + x.grad / x.grad.abs().mean(dim=(1, 2, 3), keepdim=True)
        moved = expected + 0.01 * momentum.sign()
        expected = torch.min(torch.max(moved, images - EPS), images + EPS).clamp(0, 1)
    result = MIFGSM(eps=EPS, steps=4, step_size=0.01, decay=0.5)(net, images, labels)
    torch.testing.assert_close(result.adversarial, expected, atol=1e-6, rtol=0)


def test_diverse_inputs(sample):
    """Without diversity it is MI-FGSM; with it every step sees the image smaller and elsewhere, with zeros around it."""
    net, images, labels = small_network(2), sample[0][:4], sample[1][:4]
    plain = MIFGSM(steps=3)(net, images, labels).adversarial
    assert DIMIFGSM(steps=3, diversity=0)(net, images, labels).adversarial.equal(plain)
    diverse = DIMIFGSM(steps=3, diversity=1)
    assert not diverse(net, images, labels).adversarial.equal(plain)
    assert diverse(net, images[:1], labels[:1]).adversarial.equal(diverse(net, images, labels).adversarial[:1])
    white, sides = torch.ones(2, 3, 32, 32), set()
    for step in range(40):
        seen = diverse.view(white, step)
        assert seen.shape == white.shape
        assert set(seen.unique().tolist()) == {0, 1}
        side = seen[0, 0].amax(dim=0).sum().item()
        assert seen.sum() == 2 * 3 * side**2  # one square
        sides.add(side)
    assert sides == {26, 27, 28, 29, 30, 31}
    views = [torch.equal(DIMIFGSM(diversity=0.7).view(white, step), white) for step in range(400)]
    assert sum(views) / 400 == pytest.approx(0.3, abs=0.07)
    for wrong in ({"diversity": 1.5}, {"smallest": 0}):
        with pytest.raises(ValueError, match=r"outside|at least 1"):
            DIMIFGSM(**wrong)
    with pytest.raises(ValueError, match="outside 1 to 31"):
        DIMIFGSM(smallest=32)(net, images, labels)


def test_random_start_depends_on_image_and_seed_alone(sample):
    images = sample[0][:8]
    together = uniform_noise(images, seed=0)
    alone = torch.cat([uniform_noise(image[None], seed=0) for image in images.flip(0)]).flip(0)
    assert together.equal(alone)
    assert not together.equal(uniform_noise(images, seed=1))
    assert together.abs().max() <= 1
    assert together.abs().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("loss", ["average", "taken"])
def test_batch_does_not_matter(dynn, sample, loss):
    images, labels = sample[0][:6], sample[1][:6]
    attack = PGD(loss=loss, steps=2)
    together = attack(dynn, images, labels)
    alone = [attack(dynn, x[None], y[None]) for x, y in zip(images, labels, strict=True)]
    apart = torch.cat([result.adversarial for result in alone])
    assert ((together.adversarial - apart).abs() < 1e-6).double().mean() > 0.999  # a sign may flip where a gradient is 0
    assert together.macs.equal(torch.cat([result.macs for result in alone]))
    assert attack(dynn, images, labels).adversarial.equal(together.adversarial)


def test_network_and_inputs_are_left_as_they_were(sample):
    net = small_network(3)
    net.train()
    net.exits.eval()
    net.exits.requires_grad_(False)
    parameter = next(net.parameters())
    parameter.grad = torch.ones_like(parameter)
    modes = [module.training for module in net.modules()]
    images, labels = sample[0][:4].clone(), sample[1][:4]
    with torch.no_grad():
        PGD(steps=2)(net, images, labels)
    assert [module.training for module in net.modules()] == modes
    assert parameter.grad.equal(torch.ones_like(parameter))
    assert not any(p.grad is not None for p in list(net.parameters())[1:])
    assert not net.exits[0][-1].weight.requires_grad
    assert images.equal(sample[0][:4])
    assert not images.requires_grad


def test_finished_images_leave_the_batch(dynn, sample):
    images, labels = sample[0][:32], sample[1][:32]
    patient, hasty = PGD(steps=6), PGD(steps=6, early_stop=True)
    assert len(dynn.macs) == 7  # counted once, and here, not under the hook
    seen = []
    hook = dynn.backbone.stem.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    result = hasty(dynn, images, labels)
    hook.remove()
    sizes = seen[:-1]  # the last pass checks the result
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert result.reached.sum() >= patient(dynn, images, labels).reached.sum() - 1
    assert result.macs.sum() == 2 * dynn.macs[-1] * sum(sizes)


class NoModules(nullcontext):
    """Stands in for the counter's record of modules, whose hooks refuse torch.autograd.grad."""

    parents = ("Global",)


@pytest.mark.parametrize("loss", ["final", "average", "taken", "exit=2", "max_average"])
def test_counted_macs_are_those_run(dynn, sample, loss):
    images, labels = sample[0][:8], sample[1][:8]
    attack = PGD(loss=loss, steps=2)
    assert len(dynn.macs) == 7  # counted once, and here, not under the counter
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = NoModules()
    with counter:
        result = attack(dynn, images, labels)
    checks = attack.mechanism.run(dynn, result.adversarial).cost
    run = counter.get_total_flops() / 2 - checks.sum().item()
    assert result.macs.sum().item() == pytest.approx(run, rel=0.01)


def test_taken_runs_nothing_behind_the_exit_taken(dynn, sample):
    images, labels = sample[0][:8], sample[1][:8]
    mechanism = ConfidenceExit(0.11)  # a maximum of ten probabilities is hardly ever lower, so all leave at once
    assert mechanism.run(dynn, images).exit.max() == 0
    assert len(dynn.macs) == 7  # counted once, and here, not under the hook
    deeper = []
    hook = dynn.exits[1].register_forward_hook(lambda *_: deeper.append(1))
    result = PGD(loss="taken", steps=2, mechanism=mechanism)(dynn, images, labels)
    hook.remove()
    assert not deeper
    assert (result.macs == (1 + 2 * 2) * dynn.macs[0]).all()  # one look at the clean image, two steps forward and backward


def test_losses_by_hand(sample):
    net, images, labels = small_network(3), sample[0][:5], sample[1][:5]
    logits = net(images)
    each = torch.stack([F.cross_entropy(exit, labels, reduction="none") for exit in logits])
    mechanism = ConfidenceExit(0.12)
    torch.testing.assert_close(LOSSES["average"](logits, labels, mechanism), each.mean(dim=0))
    mean = F.cross_entropy(sum(logits) / len(logits), labels, reduction="none")
    torch.testing.assert_close(LOSSES["ensemble"](logits, labels, mechanism), mean)
    torch.testing.assert_close(LOSSES["final"](logits, labels, mechanism), each[-1])
    depth, macs = LOSSES["taken"].depth(net, mechanism, images)
    decision = mechanism.decide(Answers.of(logits), net.macs)
    assert depth.equal(decision.exit)
    assert macs.equal(decision.cost)
    assert [loss.exit for loss in LOSSES["max_average"].candidates(net)] == [0, 1, 2]


def test_a_hue_of_the_figures_means_one_thing():
    kinds = {type(loss): loss.colour for loss in LOSSES.values() if loss.colour != KINDS["dynn"].colour}
    losses = {kind: colour for kind, colour in kinds.items() if kind.__base__ not in kinds}  # one built on another has its hue
    hues = [*losses.values(), *(look.colour for look in KINDS.values()), SURFACE]
    assert len(set(hues)) == len(hues)
    assert Average.colour == KINDS["dynn"].colour  # the usual attack on a dynamic network


def test_max_average_keeps_the_best_single_exit(sample):
    net, images, labels = small_network(3), sample[0][:6], sample[1][:6]

    def mean_loss(result):
        return LOSSES["average"](net(result.adversarial), labels, ConfidenceExit())

    best = mean_loss(PGD(loss="max_average")(net, images, labels))
    singles = torch.stack([mean_loss(PGD(loss=f"exit={k}")(net, images, labels)) for k in range(3)])
    torch.testing.assert_close(best, singles.max(dim=0).values)


def test_settings_are_keyword_only_and_printed():
    with pytest.raises(TypeError):
        PGD(0.1)
    assert "eps=0.1" in repr(PGD(eps=0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 0}, "eps"),
        ({"eps": 1.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"steps": 0}, "steps"),
        ({"step_size": -1.0}, "step size"),
        ({"loss": "exit=x"}, "unknown loss"),
        ({"loss": "mean"}, "unknown loss"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[0], y), "need torch.float32"),
        (lambda x, y: (x[:, :1], y), "need torch.float32"),
        (lambda x, y: (x.double(), y), "need torch.float32"),
        (lambda x, y: (x + 1, y), "outside"),
        (lambda x, y: (x * float("nan"), y), "not finite"),
        (lambda x, y: (x, y[:1]), "labels are"),
        (lambda x, y: (x, y.float()), "labels are"),
        (lambda x, y: (x, y + 10), "labels are outside"),
        (lambda x, y: (x, y - 10), "labels are outside"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
    ],
)
def test_bad_input(sample, change, message):
    images, labels = change(sample[0][:2], sample[1][:2])
    with pytest.raises(ValueError, match=message):
        FGSM()(small_network(), images, labels)


def test_exit_out_of_range(sample):
    with pytest.raises(ValueError, match="out of range"):
        FGSM(loss="exit=7")(small_network(2), sample[0][:2], sample[1][:2])


def test_asking_by_a_plain_loop(dynn, sample):
    """The walk, image by image: each step is paid for, and so is what the network as deployed runs beyond it to answer."""
    images, labels, mechanism = sample[0][:10], sample[1][:10], ConfidenceExit(0.9)
    walk = PGD(step_size=0.5 / 255, steps=6, random_start=False, early_stop=True, asks=True, loss="taken", mechanism=mechanism)
    result, costs = walk(dynn, images, labels), dynn.macs
    for k in range(len(labels)):
        x, label = images[k : k + 1], labels[k : k + 1]
        taken = mechanism.run(dynn, x)
        depth = int(torch.searchsorted(costs, taken.cost))
        loss = AtExit(int(taken.exit))
        steps, spent, adversarial = 0, int(taken.cost), x.clone()
        for _ in range(walk.steps):
            spent += 2 * int(costs[depth])
            now = mechanism.run(dynn, adversarial)
            spent += max(int(now.cost) - int(costs[depth]), 0)  # what it ran beyond
            if now.label != label:
                break
            inputs = adversarial.clone().requires_grad_()
            value = loss(dynn(inputs, int(taken.exit)), label, mechanism)
            (gradient,) = torch.autograd.grad(value.sum(), inputs)
            adversarial = walk.project(adversarial + walk.rate * gradient.sign(), x)
            steps += 1
        assert result.steps[k] == steps
        assert result.macs[k] == spent
        assert (result.adversarial[k] - adversarial[0]).abs().max() < 1e-5


def test_asking_notices_what_a_shallow_loss_does_not(dynn, sample):
    """With the same budget the walk that asks makes no more steps, and somewhere fewer."""
    common = {"step_size": 0.5 / 255, "steps": 8, "random_start": False, "early_stop": True, "loss": "taken"}
    asking, silent = (PGD(**common, asks=asks)(dynn, sample[0][:40], sample[1][:40]) for asks in (True, False))
    assert (asking.steps <= silent.steps).all()
    assert (asking.steps < silent.steps).any()


@pytest.mark.parametrize("settings", [{"asks": True}, {"asks": True, "early_stop": True, "goal": "mirror"}])
def test_only_an_attack_that_stops_at_an_error_asks(settings):
    with pytest.raises(ValueError, match="asks: only an attack that stops early"):
        PGD(**settings)
