"""RQ3: the Early Attack, what it opens beyond other attacks, on whom else it works, and which designs withstand it.

Everything is measured against what a network's own final exit predicts for the clean image: ``kept`` 1 where the final exit still
says it, ``deployed`` 1 where the network as deployed does, ``flipped`` the number of early exits that do not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dynlib.attacks import PGD, AttackResult, EarlyAttack, EarlyPGD
from dynlib.experiments.common import BATCH, Record, digits, load_images, load_networks
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.mechanisms.base import depths
from dynlib.networks.exits import MultiExitNetwork
from dynlib.progress import progress

AnyAttack = PGD | EarlyAttack


def early_attack(
    source: str,
    targets: list[str],
    *,
    n_images: int,
    eps_255: list[int],
    steps: int,
    variants: list[str],
    threshold: float,
    seed: int,
    device: str,
) -> list[Record]:
    """The Early Attack inside a ball, beside PGD at equal radius, and the ablation of its loss.

    Args:
        source: id of a dynamic network, such as ``"cifar10-resnet56-dynn"``, that the examples are made on.
        targets: ids of the networks that they are shown to, too; of the same dataset.
        n_images: the first n test images.
        eps_255: radii in 255ths; the ablation is made at the smallest, where not everything succeeds.
        steps: gradient steps.
        variants: losses of ``EarlyPGD``, see ``dynlib.attacks.losses``; the first is used at every radius.
        threshold: of the confidence exits, in (0, 1).
        seed: of the random starts.
        device: a torch device.
    Returns:
        A row for each attack, clean images included, and target. The source's rows have each image's gradient steps (``made``),
        thousands of MACs (``kmacs``), and distortions in thousandths of the range of images (``l2``, ``linf``), separated by
        spaces; its clean row says where the network as deployed (``right``) and its final exit (``final_right``) are right.
    Raises:
        ValueError: unknown name, value out of range, a source without early exits, or targets of another dataset.
        DataError, CheckpointError: data or network missing or damaged.
    """
    mechanism, attacks = ConfidenceExit(threshold), []
    for eps in eps_255:
        common = {"eps": eps / 255, "steps": steps, "mechanism": mechanism, "seed": seed}
        attacks += [PGD(loss=loss, **common) for loss in ("final", "taken")]
        # One that stops as soon as the network as deployed errs has the best chance of a final exit that does not yet.
        attacks.append(PGD(loss="taken", early_stop=True, **common))
        losses = variants if eps == min(eps_255) else variants[:1]
        attacks += [EarlyPGD(loss=loss, goal=goal, **common) for loss in losses for goal in ("open_surface", "strict")]
    return _measured(source, targets, attacks, n_images, mechanism, device)


def published_attack(
    source: str,
    targets: list[str],
    *,
    n_images: int,
    alphas: list[float],
    iterations: int,
    threshold: float,
    seed: int,
    device: str,
) -> list[Record]:
    """The Early Attack as published, which has no bound on its distortion, over the weight of the final exit.

    Args:
        source, targets, n_images, threshold, seed, device: as for ``early_attack``.
        alphas: weights of the final exit's lead, at least 0.
        iterations: at most so many.
    Returns, raises:
        as ``early_attack``.
    """
    mechanism = ConfidenceExit(threshold)
    attacks = [EarlyAttack(alpha=alpha, iterations=iterations, mechanism=mechanism, seed=seed) for alpha in alphas]
    return _measured(source, targets, attacks, n_images, mechanism, device)


def attack_design(
    source: str,
    targets: list[str],
    *,
    n_images: int,
    eps_255: list[int],
    steps: int,
    thresholds: list[float],
    threshold: float,
    seed: int,
    device: str,
) -> list[Record]:
    """Designs of a dynamic network, each attacked by one who knows it: ``EarlyPGD`` on the network that has just those exits.

    Args:
        source, n_images, steps, seed, device: as for ``early_attack``.
        targets: none; the attacker has the network itself.
        eps_255: radii in 255ths.
        thresholds: to try with all exits.
        threshold: of the default design, which has all exits and falls back to the most confident one.
    Returns:
        A row for each design and radius; ``exits`` 0-based. ``depth`` is the deepest exit run for the clean image, counted among
        all exits of the network; ``right`` and ``final_right`` are as for ``early_attack``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    net, rows = load_networks([source], device)[source], []
    images, truth = load_images(net.dataset, n_images, device)
    own = _own(net, images)
    runs = [(*design, eps) for design in designs(net.n_exits, thresholds, threshold) for eps in eps_255]
    for exits, mechanism, eps in progress(runs, f"designs of {source}"):
        pruned = net.with_exits(exits)
        attack = EarlyPGD(eps=eps / 255, steps=steps, mechanism=mechanism, seed=seed)
        design = {"exits": " ".join(map(str, exits)), "threshold": mechanism.threshold, "fall_back": mechanism.fall_back_to}
        clean = _clean(pruned, images, truth, mechanism)
        clean["depth"] = "".join(str(exits[int(depth)]) for depth in clean["depth"])
        adversarial = _in_batches(attack, pruned, images, own)[0]
        rows.append({"source": source, **design, "eps_255": eps, **clean, **_kept(pruned, adversarial, own, mechanism)})
    return rows


def designs(n_exits: int, thresholds: Sequence[float], default: float) -> list[tuple[tuple[int, ...], ConfidenceExit]]:
    """The default design with one choice changed at a time: the first exit, how many early exits, threshold, fall-back.

    Exits are 0-based, the final one last. Fewer exits are spread evenly from the first one on. The design without early exits is
    left out: there is nothing to attack.
    """
    every, usual, last = tuple(range(n_exits)), ConfidenceExit(default), n_exits - 1
    found = [(every[k:], usual) for k in range(last)]
    found += [((*(last * k // count for k in range(count)), last), usual) for count in range(1, last)]
    found += [(every, ConfidenceExit(t)) for t in thresholds]
    found += [(every, ConfidenceExit(default, rule)) for rule in FALL_BACKS]
    return list(dict.fromkeys(found))


def _measured(
    source: str, targets: list[str], attacks: Sequence[AnyAttack], n_images: int, mechanism: Mechanism, device: str
) -> list[Record]:
    """Clean images, then each attack's, shown to the source and to the targets."""
    nets = load_networks((source, *targets), device)
    net = nets[source]
    images, truth = load_images(net.dataset, n_images, device)
    own = {name: _own(other, images) for name, other in nets.items()}
    blank = dict.fromkeys(("right", "final_right", "depth", "made", "kmacs", "l2", "linf"), "")
    clean = {"attack": "none", "loss": "none", "goal": "none", "eps_255": 0, "alpha": ""}
    rows = []

    def show(what: Record, adversarial: Tensor, of_source: Record) -> None:
        for name, other in nets.items():
            row = {"source": source, "target": name, **what, **blank, **_kept(other, adversarial, own[name], mechanism)}
            rows.append(row | of_source if name == source else row)

    show(clean, images, _clean(net, images, truth, mechanism))
    for attack in progress(attacks, f"attacks on {source}"):
        adversarial, steps, macs = _in_batches(attack, net, images, own[source])
        show(_about(attack), adversarial, _spent(adversarial - images, steps, macs))
    return rows


def _about(attack: AnyAttack) -> Record:
    if isinstance(attack, EarlyAttack):
        return {"attack": "early_attack", "loss": "early", "goal": "strict", "eps_255": 0, "alpha": attack.alpha}
    # Records call the goal of all that stop once the network as deployed errs "deployed".
    goal = "none" if not attack.early_stop else "strict" if attack.goal == "strict" else "deployed"
    return {"attack": attack.name, "loss": attack.loss, "goal": goal, "eps_255": round(attack.eps * 255), "alpha": ""}


@torch.no_grad()
def _own(net: MultiExitNetwork, images: Tensor) -> Tensor:
    """What the final exit says, ``[n]``."""
    return torch.cat([net(x)[-1].argmax(dim=-1) for x in images.split(BATCH)])


def _in_batches(attack: AnyAttack, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Adversarial images, steps and MACs."""
    batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    result = AttackResult(*(torch.cat(column) for column in zip(*(attack(net, x, y) for x, y in batches), strict=True)))
    return result.adversarial, result.steps, result.macs


@torch.no_grad()
def _kept(net: MultiExitNetwork, images: Tensor, own: Tensor, mechanism: Mechanism) -> Record:
    """What is left of what the network's final exit predicted for the clean images."""
    logits = torch.cat([net(x) for x in images.split(BATCH)], dim=1)
    answers, decision = logits.argmax(dim=-1), mechanism.decide(Answers.of(logits), net.macs)
    columns = {"flipped": (answers[:-1] != own).sum(dim=0), "kept": answers[-1] == own, "deployed": decision.label == own}
    return {name: digits(column) for name, column in columns.items()}


@torch.no_grad()
def _clean(net: MultiExitNetwork, images: Tensor, truth: Tensor, mechanism: Mechanism) -> Record:
    logits = torch.cat([net(x) for x in images.split(BATCH)], dim=1)
    decision = mechanism.decide(Answers.of(logits), net.macs)
    columns = {
        "right": decision.label == truth,
        "final_right": logits[-1].argmax(dim=-1) == truth,
        "depth": depths(net.macs, decision.cost),
    }
    return {name: digits(column) for name, column in columns.items()}


def _spent(difference: Tensor, steps: Tensor, macs: Tensor) -> Record:
    flat = difference.flatten(1)
    columns = {"made": steps, "kmacs": macs // 1000, "l2": 1000 * flat.norm(dim=1), "linf": 1000 * flat.abs().amax(dim=1)}
    return {name: " ".join(str(round(value)) for value in column.tolist()) for name, column in columns.items()}
