"""What the experiments stored under ``results/``, read back and checked."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parsed
from torch import Tensor

from dynlib.attacks import ATTACKS
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS, DENIED, RESULTS
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from dynlib.packing import unpack


class ResultsError(RuntimeError):
    """Results that are missing, damaged or of other weights; the message is one line and names the file."""


def stored(profile: str, experiment: str) -> Iterator[tuple[Path, dict]]:
    """The files of an experiment, each with what it stands on, checked.

    Raises:
        ResultsError: no results, damaged ones, or results of other weights than the shipped ones.
    """
    folder = RESULTS / profile / experiment
    paths = sorted(
        (path for path in folder.glob("*") if path.suffix in (".csv", ".safetensors")),
        key=lambda path: Network.parse(path.stem).rank,
    )
    if not paths:
        raise ResultsError(f"{folder} holds no results: run `./run_all.sh --profile {profile}`")
    for path in paths:
        with named_if_damaged(path):
            about = json.loads(path.with_suffix(".json").read_text())
            weights = dict(about["weights"])
        for network, digest in weights.items():
            if digest != read_card(Network.parse(network).path(CHECKPOINTS))["weights_sha256"]:
                raise ResultsError(f"{path} was measured with other weights of {network}: delete it and run again")
        yield path, about


@contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ResultsError(f"{error.filename or path} {DENIED}") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ResultsError(f"{path} is damaged ({error}): delete it and run again") from None


FLAGS, NUMBERS = ("correct", "final"), ("exit", "depth")  # columns of one character per image


def read_records(profile: str, experiment: str = "transferability", seed: int = 0) -> pd.DataFrame:
    """The records of the transfer matrix, or of ``same_backbone``, that were made with one seed.

    The per-image columns hold arrays ``[n]``, bool for ``FLAGS``, int for ``NUMBERS``. Not everything is made with every seed, but
    clean images are in all.

    Raises:
        ResultsError: see ``stored``.
    """
    records = _tables(profile, experiment, _seeded)
    return records[(records.attack == "none") | (records.seed == seed)].reset_index(drop=True)


def read_seeds(profile: str) -> list[int]:
    """The seeds that attacks of the transfer matrix were made with.

    Raises:
        ResultsError: see ``stored``.
    """
    return sorted({int(seed) for seed in _tables(profile, "transferability", _seeded).seed.dropna()})


def read_efficiency(profile: str, experiment: str = "efficiency") -> pd.DataFrame:
    """All records of what attacks cost, as above; ``made`` and ``macs`` hold each image's steps and MACs, int ``[n]``.

    Raises:
        ResultsError: see ``stored``.
    """
    return _tables(profile, experiment, _costs)


def read_early(profile: str, experiment: str) -> pd.DataFrame:
    """All records of an experiment with the Early Attack; per-image columns as above, empty ones ``[0]``.

    Raises:
        ResultsError: see ``stored``.
    """
    return _tables(profile, experiment, _early)


def read_timing(profile: str) -> pd.DataFrame:
    """Time and MACs of dynamic inference relative to a static network: a row for each network and batch size.

    ``time_ratio`` is the median over the rounds, ``low`` and ``high`` the smallest and largest.
    """
    rounds = _tables(profile, "timing", _ratios).groupby(["source", "batch"], as_index=False)
    ratios = {"time_ratio": ("time_ratio", "median"), "low": ("time_ratio", "min"), "high": ("time_ratio", "max")}
    return rounds.agg(macs_ratio=("macs_ratio", "first"), **ratios)


def _tables(profile: str, experiment: str, parsed: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """The CSV files of an experiment, read as text, parsed one by one and put together."""
    frames = []
    for path, _ in stored(profile, experiment):
        with named_if_damaged(path):
            frames.append(parsed(pd.read_csv(path, dtype=str, keep_default_na=False)))
    return pd.concat(frames, ignore_index=True)


def _records(frame: pd.DataFrame) -> pd.DataFrame:
    frame["eps_255"], frame["threshold"] = frame["eps_255"].astype(int), pd.to_numeric(frame["threshold"])
    for column in FLAGS + NUMBERS:
        kind = bool if column in FLAGS else int
        frame[column] = [np.array(list(text), dtype=int).astype(kind) for text in frame[column]]
    return frame


def _seeded(frame: pd.DataFrame) -> pd.DataFrame:
    return _records(frame).assign(seed=pd.to_numeric(frame["seed"]), l2=frame["l2"].astype(float))


def _costs(frame: pd.DataFrame) -> pd.DataFrame:
    frame = _records(frame)
    frame["steps"], frame["seconds"] = frame["steps"].astype(int), frame["seconds"].astype(float)
    frame["made"] = [np.array(text.split(), dtype=int) for text in frame["made"]]
    frame["macs"] = [1000 * np.array(text.split(), dtype=int) for text in frame.pop("kmacs")]
    return frame


def _early(frame: pd.DataFrame) -> pd.DataFrame:
    frame["eps_255"] = frame["eps_255"].astype(int)
    for column in ("alpha", "threshold"):
        if column in frame:
            frame[column] = pd.to_numeric(frame[column])
    for column in {"right", "final_right", "depth", "flipped", "kept", "deployed"} & set(frame):
        kind = int if column in ("depth", "flipped") else bool
        frame[column] = [np.array(list(text), dtype=int).astype(kind) for text in frame[column]]
    for column in {"made", "kmacs", "l2", "linf"} & set(frame):
        frame[column] = [np.array(text.split(), dtype=int) for text in frame[column]]
    return frame


def _ratios(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.astype({"batch": int, "dynamic_ms": float, "static_ms": float, "macs_ratio": float})
    return frame.assign(time_ratio=frame["dynamic_ms"] / frame["static_ms"])


class Outputs(NamedTuple):
    """What a network's exits predict for test images: ``logits`` ``[exits, n, classes]``, ``labels`` ``[n]``, ``macs`` ``[exits]``.

    The logits are as stored: exact log-probabilities of the likeliest classes, see ``dynlib.packing``.
    """

    network: str
    logits: Tensor
    labels: Tensor
    macs: Tensor


# By static source and dynamic target.
Pairs = dict[tuple[str, str], Outputs]
# Attack and radius in 255ths.
Setting = tuple[str, int]


def read_outputs(profile: str) -> list[Outputs]:
    """The stored outputs of every network on clean images.

    Raises:
        ResultsError: see ``stored``.
    """
    found = []
    for path, _ in stored(profile, "outputs"):
        with named_if_damaged(path):
            found.append(_outputs(path.stem, **parsed(path.read_bytes())))
    return found


def read_exit_design(profile: str, experiment: str = "exit_design") -> dict[Setting, Pairs]:
    """By attack and radius, then static source and dynamic target: what the target's exits predict for the source's examples.

    The targets of ``retrained`` are networks that were trained for their design; there attack ``"none"`` stands for clean images.

    Raises:
        ResultsError: see ``stored``.
    """
    found: dict[Setting, Pairs] = {}
    for path, _ in stored(profile, experiment):
        with named_if_damaged(path):
            tensors = parsed(path.read_bytes())
            labels, packed = tensors.pop("labels"), {}
            for name, tensor in tensors.items():
                target, attack, eps, part = name.split("/")
                packed.setdefault((attack, int(eps), target), {})[part] = tensor
            for attack, eps, target in sorted(
                packed, key=lambda key: (["none", *ATTACKS].index(key[0]), key[1], Network.parse(key[2]).rank)
            ):
                outputs = _outputs(target, **packed[attack, eps, target], labels=labels)
                found.setdefault((attack, eps), {})[path.stem, target] = outputs
    return found


def _outputs(network: str, largest: Tensor, classes: Tensor, labels: Tensor) -> Outputs:
    n_classes = DATASETS[Network.parse(network).dataset].classes
    return Outputs(network, unpack(largest, classes, n_classes), labels, read_macs(network))


def read_macs(network: str) -> Tensor:
    """Multiply-accumulates up to each exit of a shipped network, ``[exits]``."""
    return torch.tensor(read_card(Network.parse(network).path(CHECKPOINTS))["macs"])
