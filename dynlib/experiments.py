"""The measurements: a function each, arguments in, per-image records or tensors out. Also a command, for the workflow.

Records are rows with one character per image, so they stay small and can be read by eye: ``correct`` 1 where the network as
deployed answers rightly, ``final`` 1 where its final exit does, ``exit`` the exit that answers, ``depth`` the deepest one run.
"""

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import Tensor

from dynlib import checkpoints, data
from dynlib.attacks import ATTACKS, PGD, Attack, Iterative
from dynlib.behaviour import all_logits
from dynlib.exits import MultiExitNetwork
from dynlib.files import atomic, code_version
from dynlib.mechanisms import ConfidenceExit
from dynlib.progress import progress

BATCH = 100
Record = dict[str, str | int | float]


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
        seed: of the random starts.
        device: a torch device.
    Returns:
        A row for each attack, loss, radius, target and, where the target is dynamic, threshold; and the same with attack
        ``"none"``: clean images.
    Raises:
        ValueError: unknown name or value out of range.
        DataError, CheckpointError: data or network missing or damaged.
    """
    dataset = source.split("-")[0]
    if {target.split("-")[0] for target in targets} != {dataset}:
        raise ValueError(f"targets {', '.join(targets)} are not all for the dataset of {source}")
    nets = {name: checkpoints.load_id(name).to(device) for name in {source: None, **dict.fromkeys(targets)}}
    if nets[source].n_exits == 1:
        attacks = [{**attack, "losses": ["final"]} for attack in attacks]
    # One that is asked for twice, as a static source's may be, is made once.
    made = dict.fromkeys(attack for spec in attacks for attack in grid(**spec, threshold=threshold, seed=seed))
    thresholds = list(dict.fromkeys((threshold, *other_thresholds)))
    split = data.load(dataset, "test", n_images)
    images, labels = split.inputs.to(device), split.labels.to(device)
    clean = {"attack": "none", "loss": "none", "eps_255": 0}
    rows = [row for t in targets for row in observe(clean, source, t, nets[t], thresholds, images, labels)]
    for attack in progress(made, f"attacks on {source}"):
        batches = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        adversarial = torch.cat([attack(nets[source], x, y).adversarial for x, y in batches])
        what = {"attack": attack.name, "loss": attack.loss, "eps_255": round(attack.eps * 255)}
        rows += [row for t in targets for row in observe(what, source, t, nets[t], thresholds, adversarial, labels)]
    return rows


def grid(
    *, name: str, losses: list[str], eps_255: list[int], steps: int | None = None, threshold: float, seed: int
) -> list[Attack]:
    """One attack with every loss and radius.

    Args:
        name: in ``ATTACKS``.
        losses: names, see ``dynlib.attacks.losses``.
        eps_255: radii in 255ths, 1 to 255.
        steps: gradient steps, for an attack that iterates.
        threshold, seed: as for ``transferability``.
    Raises:
        ValueError: unknown name, or a value out of range.
    """
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}: choose one of {', '.join(ATTACKS)}")
    if (steps is not None) != issubclass(ATTACKS[name], Iterative):
        raise ValueError(f"{name} {'takes no' if steps else 'needs'} steps")
    more = {"mechanism": ConfidenceExit(threshold), "seed": seed, **({"steps": steps} if steps else {})}
    return [ATTACKS[name](eps=eps / 255, loss=loss, **more) for loss, eps in product(losses, eps_255)]


@torch.no_grad()
def observe(
    what: Record, source: str, target: str, net: MultiExitNetwork, thresholds: list[float], images: Tensor, labels: Tensor
) -> list[Record]:
    """What a target makes of each image: a record for each threshold, or one where it has a single exit."""
    logits, rows = torch.cat([net(x) for x in images.split(BATCH)], dim=1), []
    for threshold in thresholds if net.n_exits > 1 else thresholds[:1]:
        decision = ConfidenceExit(threshold).decide(logits)
        columns = {
            "correct": decision.label == labels,
            "final": logits[-1].argmax(dim=-1) == labels,
            "exit": decision.exit,
            "depth": decision.depth,
        }
        texts = {name: "".join(str(int(value)) for value in column) for name, column in columns.items()}
        rows.append({"source": source, "target": target, **what, "threshold": threshold if net.n_exits > 1 else "", **texts})
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
    nets = {name: checkpoints.load_id(name).to(device) for name in dict.fromkeys((source, *targets))}
    mechanism, net = ConfidenceExit(threshold), nets[source]
    split = data.load(net.dataset, "test", n_images)
    images, labels = split.inputs.to(device), split.labels.to(device)
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


@torch.no_grad()
def outputs(network: str, targets: list[str], *, n_images: int, device: str) -> dict[str, Tensor]:
    """What every exit of a network says of the first test images.

    Args:
        network: network id.
        targets: none; there is nothing to compare with.
        n_images: the first n test images.
        device: a torch device.
    Returns:
        ``logits`` ``[exits, n, classes]`` in half precision, and the images' ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    net = checkpoints.load_id(network).to(device)
    split = data.load(net.dataset, "test", n_images)
    return {"logits": all_logits(net, split.images).half(), "labels": split.labels}


def exit_design(
    source: str, targets: list[str], *, n_images: int, eps_255: int, steps: int, seed: int, device: str
) -> dict[str, Tensor]:
    """RQ2: what every exit of dynamic networks says of PGD examples made on a static one, for any design to be read from.

    Args:
        source, targets, n_images, seed, device: as for ``transferability``.
        eps_255: radius in 255ths.
        steps: gradient steps.
    Returns:
        For each target its logits ``[exits, n, classes]`` in half precision, and ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    nets = {name: checkpoints.load_id(name).to(device) for name in dict.fromkeys((source, *targets))}
    split = data.load(nets[source].dataset, "test", n_images)
    images, labels = split.inputs.to(device), split.labels.to(device)
    attack, parts = PGD(eps=eps_255 / 255, loss="final", steps=steps, seed=seed), []
    for x, y in progress(list(zip(images.split(BATCH), labels.split(BATCH), strict=True)), f"examples of {source}"):
        parts.append(attack(nets[source], x, y).adversarial)
    with torch.no_grad():
        logits = {t: torch.cat([nets[t](x) for x in parts], dim=1).half().cpu() for t in targets}
    return {**logits, "labels": split.labels}


@torch.no_grad()
def timing(
    network: str, targets: list[str], *, n_images: int, batches: list[int], rounds: int, threshold: float, device: str
) -> list[Record]:
    """Time and MACs of dynamic inference, beside a run through a static network: they take turns on the same images.

    Args:
        network: id of the dynamic network.
        targets: ids of static networks.
        n_images: the first n test images.
        batches: batch sizes.
        rounds: how often each is measured, after one round that is not.
        threshold: of the confidence exits, in (0, 1).
        device: a torch device.
    Returns:
        A row for each batch size, round and static network: milliseconds an image, and the ratio of the MACs.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    net, mechanism = checkpoints.load_id(network).to(device), ConfidenceExit(threshold)
    images, rows = data.load(net.dataset, "test", n_images).inputs.to(device), []

    def milliseconds(run: Callable[[Tensor], object], batch: int) -> float:
        start = time.perf_counter()
        for part in images.split(batch):
            run(part)
        if images.is_cuda:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start) / n_images

    depth = torch.cat([mechanism.infer(net, part).depth for part in images.split(BATCH)]).cpu()
    for target, batch, number in product(targets, batches, range(rounds + 1)):
        static = checkpoints.load_id(target).to(device)
        seconds = {
            "dynamic_ms": milliseconds(lambda part: mechanism.infer(net, part), batch),
            "static_ms": milliseconds(static, batch),
        }
        if number > 0:  # the first one warms up
            macs_ratio = (net.macs[depth].double().mean() / static.macs[-1]).item()
            rows.append({"source": network, "target": target, "batch": batch, **seconds, "macs_ratio": macs_ratio})
    return rows


EXPERIMENTS = {function.__name__: function for function in (transferability, efficiency, outputs, exit_design, timing)}


def provenance(settings: dict, networks: list[str], seconds: float) -> dict:
    """What a result stands on: settings, weights, data, code, packages, device and time."""
    device = torch.device(settings["device"])
    return {
        "settings": settings,
        "weights": {name: checkpoints.load_id(name).card["weights_sha256"] for name in networks},
        "data": data.DIGESTS[networks[0].split("-")[0]]["test"],
        "code": code_version(),
        "packages": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        "seconds": round(seconds, 1),
    }


def write(result: list[Record] | dict[str, Tensor], about: dict, path: Path) -> None:
    """Rows as CSV or tensors as safetensors, and beside them, in JSON, what they stand on."""
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
    with atomic(path) as temporary:
        if isinstance(result, dict):
            save_file(result, temporary)
            return
        with open(temporary, "w", newline="") as file:
            table = csv.DictWriter(file, result[0])
            table.writeheader()
            table.writerows(result)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dynlib.experiments", description="Measure one network and write what was seen."
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--source", required=True, help="network id such as cifar10-resnet56-dynn")
    parser.add_argument("--targets", nargs="*", default=[], help="network ids")
    parser.add_argument("--settings", required=True, type=json.loads, help="the other arguments, as JSON")
    parser.add_argument("--out", required=True, type=Path, help="CSV or safetensors file")
    given = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        result = EXPERIMENTS[given.experiment](given.source, given.targets, **given.settings)
        networks = sorted({given.source, *given.targets})
        write(result, provenance(given.settings, networks, time.perf_counter() - start), given.out)
    except (ValueError, TypeError, OSError, data.DataError, checkpoints.CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
