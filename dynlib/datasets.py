"""The data sets that the library knows.

``DATASETS`` is the registry: another data set is one more entry, here or at run time. This one lies in ``mine.npz`` in the data
folder, as ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``:

    DATASETS["mine"] = Dataset("mine", "My data", classes=7, mean=..., std=..., digests={"train": ..., "test": ...}, side=64)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PARTS = ("train", "test")  # what a data set consists of; the validation images are held out of the training images


class Sample(NamedTuple):
    """The first ``size`` images of a split, which come with the package, and their digest."""

    size: int
    digest: str


@dataclass(frozen=True)
class Dataset:
    """What the library has to know about a data set of square images with three channels.

    Args:
        name: its key in ``DATASETS``, and part of files' names and networks' ids; letters, digits and underscores.
        display: its name for people.
        classes: number of classes, 1 to 256; labels count from 0.
        mean: of the training images in [0, 1], for each channel.
        std: standard deviation of the same, above 0.
        digests: ``data.digest`` of each of ``PARTS`` in the order of ``data.canonical``.
        side: height and width of the images in pixels.
        class_names: a name for each class, or none at all.
        validation: number of training images held out, as many of each class; what does not divide evenly is trained on.
        samples: for each split the sample that comes with the package, if one does.
    Raises:
        ValueError: a value out of range, or parts other than ``PARTS``.
    """

    name: str
    display: str
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digests: Mapping[str, str]
    side: int = 32
    class_names: tuple[str, ...] = ()
    validation: int = 5000
    samples: Mapping[str, Sample] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise ValueError(f"data set {self.name!r}: need a name of letters, digits and underscores")
        if not 1 <= self.classes <= 256:
            raise ValueError(f"{self.name}: {self.classes} classes are outside 1 to 256")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"{self.name}: mean {self.mean}, deviation {self.std}: need three numbers each, deviations above 0")
        if {*self.digests} != {*PARTS}:
            raise ValueError(f"{self.name}: digests of {', '.join(self.digests) or 'nothing'}: need {' and '.join(PARTS)}")
        if self.side < 1:
            raise ValueError(f"{self.name}: images of side {self.side}: need at least 1")
        if len(self.class_names) not in (0, self.classes):
            raise ValueError(f"{self.name}: {len(self.class_names)} names for {self.classes} classes")
        if self.validation < self.classes:
            raise ValueError(f"{self.name}: {self.validation} validation images: need at least one of each class")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.side, self.side

    def bundled(self, split: str, n: int | None) -> bool:
        """Whether the first ``n`` images of a split, None for all, come with the package."""
        return n is not None and split in self.samples and n <= self.samples[split].size


DATASETS = {
    "cifar10": Dataset(
        "cifar10",
        "CIFAR-10",
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        digests={
            "train": "1bfc07133540c0f75b30d4288f9236001091c26c9886b9f37d46a8bc66fdcc6c",
            "test": "af1227671396612a0e2c37fb8b7aa96c0301f0463487e1afc591a17a607e58b2",
        },
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        samples={
            "test": Sample(1000, "673cdfb7979ef3447be5cdadbf4bbcc8837b2ec3b192b2f5e8931abf122448e3"),
            "validation": Sample(500, "f56abcde06ff89bcdf8cefcd1233c6201db43e2dfb368a006ddfc7fb2f7219cf"),
        },
    ),
    "cifar100": Dataset(
        "cifar100",
        "CIFAR-100",
        classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        digests={
            "train": "e8f89626d393adb13d7dab801c95b724b752e5795feae69b118bd34678f1b0ea",
            "test": "461341e8dcb42e44fd081b6a6d746918b70aa3e9b284d99eccc1bdfc670d4b60",
        },
    ),
}


def get_dataset(name: str) -> Dataset:
    """The entry of a data set.

    Raises:
        ValueError: unknown name.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
