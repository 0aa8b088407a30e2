"""The three backbones of the paper, each a stem, a list of blocks and a head.

Architectures follow the CIFAR versions used by Shallow-Deep Networks (Kaya, Hong and Dumitras, ICML 2019). ``MODELS`` is
the registry: another backbone is one more entry. VGG-16 and MobileNet take images of 32x32 pixels, ResNet-56 of any size.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Backbone(nn.Module):
    """A static classifier: ``head(blocks(stem(x)))``, from images ``[batch, 3, side, side]`` to logits ``[batch, classes]``."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module):
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class StridedDepthwiseConv2d(nn.Conv2d):
    """Leaves mixed precision: on CPUs, the gradient of a strided depthwise convolution is ten times as slow in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> OrderedDict[str, nn.Module]:
    convolution = StridedDepthwiseConv2d if groups > 1 and stride > 1 else nn.Conv2d
    conv = convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016); a 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def skippable(block: nn.Module) -> TypeGuard[BasicBlock]:
    """Whether the shortcut of a block passes its input through unchanged, so that the block can be left out."""
    return isinstance(block, BasicBlock) and isinstance(block.shortcut, nn.Identity)


def vgg16(classes: int) -> Backbone:
    """VGG-16 with batch normalisation and the three fully connected layers of 512, 512 and ``classes`` units."""
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    pooled = (2, 4, 7, 10, 13)
    blocks, inputs = [], 3
    for number, width in enumerate(widths, start=1):
        layers = conv_bn_relu(inputs, width)
        if number in pooled:
            layers["pool"] = nn.MaxPool2d(2)
        blocks.append(nn.Sequential(layers))
        inputs = width
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.Dropout(), nn.Linear(512, classes)
    )
    return Backbone(nn.Identity(), blocks, head)


def resnet56(classes: int) -> Backbone:
    """The CIFAR ResNet with three stages of nine basic blocks, 16, 32 and 64 channels wide."""
    blocks, inputs = [], 16
    for stage, width in enumerate((16, 32, 64)):
        for number in range(9):
            blocks.append(BasicBlock(inputs, width, stride=2 if stage and not number else 1))
            inputs = width
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    return Backbone(nn.Sequential(conv_bn_relu(3, 16)), blocks, head)


def mobilenet(classes: int) -> Backbone:
    """MobileNet v1 (Howard et al., 2017) for 32x32 images: a stem of stride 1, 13 depthwise separable blocks."""
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    blocks, inputs = [], 32
    for width, stride in plan:
        depthwise = nn.Sequential(conv_bn_relu(inputs, inputs, stride=stride, groups=inputs))
        blocks.append(nn.Sequential(depthwise, nn.Sequential(conv_bn_relu(inputs, width, kernel=1))))
        inputs = width
    head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1024, classes))
    return Backbone(nn.Sequential(conv_bn_relu(3, 32)), blocks, head)


class Model(NamedTuple):
    """A backbone: its name for people, how to build it for so many classes, the blocks (1-based) that the paper's exits follow.

    ``shortcuts``: whether some blocks are ``skippable``.
    """

    display: str
    build: Callable[[int], Backbone]
    exit_after: tuple[int, ...]
    shortcuts: bool = False


MODELS = {
    "vgg16": Model("VGG-16", vgg16, (2, 4, 6, 7, 9, 10)),
    "resnet56": Model("ResNet-56", resnet56, (4, 8, 12, 16, 20, 24), shortcuts=True),
    "mobilenet": Model("MobileNet", mobilenet, (3, 5, 7, 9, 12)),
}
