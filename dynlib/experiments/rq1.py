"""RQ1: do adversarial examples transfer between static and dynamic networks, and what do they cost?"""

import time

import torch

from dynlib.attacks import PGD
from dynlib.experiments.common import BATCH, Record, grid, load_images, load_networks, observe
from dynlib.mechanisms import ConfidenceExit
from dynlib.progress import progress


def transferability(
    source: str,
    targets: list[str],
    *,
    n_images: int,
    attacks: list[dict],
    threshold: float,
    other_thresholds: list[float],
    seed: int,
    device: str,
) -> list[Record]:
    """RQ1: examples made on one network, shown to others (and to itself: the white box).

    Args:
        source: network id such as ``"cifar10-resnet56-dynn"``; all networks of one dataset.
        targets: network ids.
        n_images: the first n test images.
        attacks: the arguments of ``grid`` for each of them; a static source has one exit, so one loss, recorded as ``"final"``.
        threshold: of the confidence exits that the attacker expects, in (0, 1).
        other_thresholds: further thresholds that the examples are shown to.
        seed: of the random starts, where an attack has none of its own.
        device: a torch device.
    Returns:
        A row for each attack, loss, radius (0: no ball), seed, target and, where the target is dynamic, threshold; and the same
        with attack ``"none"``: clean images. ``l2`` is the mean distortion.
    Raises:
        ValueError: unknown name or value out of range.
        DataError, CheckpointError: data or network missing or damaged.
    """
    nets = load_networks((source, *targets), device)
    if nets[source].n_exits == 1:
        attacks = [{**attack, "losses": ["final"]} for attack in attacks]
    # One that is asked for twice, as a static source's may be, is made once.
    made = dict.fromkeys(attack for spec in attacks for attack in grid(**spec, threshold=threshold, seed=seed))
    thresholds = list(dict.fromkeys((threshold, *other_thresholds)))
    images, labels = load_images(nets[source].dataset, n_images, device)
    clean = {"attack": "none", "loss": "none", "eps_255": 0, "seed": "", "l2": 0}
    rows = [row for t in targets for row in observe(clean, source, t, nets[t], thresholds, images, labels)]
    for attack in progress(made, f"attacks on {source}"):
        batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        adversarial = torch.cat([attack(nets[source], x, y).adversarial for x, y in batches])
        distortion = (adversarial - images).flatten(1).norm(dim=1).mean().item()
        what = {"attack": attack.name, "loss": attack.loss, "eps_255": round(attack.eps * 255), "seed": attack.seed}
        what["l2"] = round(distortion, 3)
        rows += [row for t in targets for row in observe(what, source, t, nets[t], thresholds, adversarial, labels)]
    return rows


def efficiency(
    source: str,
    targets: list[str],
    *,
    n_images: int,
    losses: list[str],
    eps_255: int,
    steps: list[int],
    threshold: float,
    seed: int,
    device: str,
) -> list[Record]:
    """RQ1: what PGD spends until an image fools the network that it is made on, and what a number of steps buys on others.

    Args:
        source, targets, n_images, threshold, seed, device: as for ``transferability``.
        losses: as for ``grid``.
        eps_255: radius in 255ths; the step size is a quarter of it.
        steps: numbers of gradient steps; the largest is also the bound of the white-box attack, which stops at success.
    Returns:
        A row for each loss, target and number of steps; for the source itself one row a loss with the stopping attack. ``made``
        and ``kmacs`` hold each image's steps and thousands of MACs, forward and backward, separated by spaces; ``seconds`` is the
        time of the whole attack.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    nets = load_networks((source, *targets), device)
    mechanism, net = ConfidenceExit(threshold), nets[source]
    images, labels = load_images(net.dataset, n_images, device)
    clean = {"loss": "none", "eps_255": 0, "steps": 0, "made": "", "kmacs": "", "seconds": 0.0}
    rows = [{**clean, **row} for t in nets for row in observe({}, source, t, nets[t], [threshold], images, labels)]
    runs = [(loss, n, stop) for loss in (losses if net.n_exits > 1 else ["final"]) for n, stop in _budgets(steps)]
    for loss, n, stop in progress(runs, f"cost of attacks on {source}"):
        attack = PGD(eps=eps_255 / 255, loss=loss, steps=n, early_stop=stop, mechanism=mechanism, seed=seed)
        start = time.perf_counter()
        batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        results = [torch.cat(part) for part in zip(*(attack(net, x, y) for x, y in batches), strict=True)]
        spent = {
            "made": " ".join(str(value) for value in results[2].tolist()),
            "kmacs": " ".join(str(value // 1000) for value in results[3].tolist()),
            "seconds": round(time.perf_counter() - start, 2),
        }
        what = {"loss": loss, "eps_255": eps_255, "steps": n, **spent}
        shown = [source] if stop else [target for target in targets if target != source]
        rows += [{**what, **row} for t in shown for row in observe({}, source, t, nets[t], [threshold], results[0], labels)]
    return rows


def _budgets(steps: list[int]) -> list[tuple[int, bool]]:
    """The attack that stops at success, then one for each number of steps."""
    return [(max(steps), True), *((n, False) for n in sorted(steps))]
