"""What keeps networks in step with their parts, and wrong input out of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def parts(module: nn.Module) -> list[nn.Module]:
    """All modules inside; a tenth of the time of ``modules()``, as each run of a network asks for them."""
    found = list(module._modules.values())
    for part in found:  # grows on the way
        found += part._modules.values() if part is not None else ()
    return [part for part in found if part is not None]


class InStep(nn.Module):
    """A module without a mode of its own: it is in training where anything inside is.

    So no other network that shares its weights, and no module that it wraps, can be put into another mode behind its back. Some
    attack libraries restore the mode that they found: one of its own would put an evaluating network into training.
    """

    @property
    def training(self) -> bool:
        return any(part.training for part in parts(self) if not isinstance(part, InStep))

    @training.setter
    def training(self, mode: bool) -> None:
        """Nothing to keep: ``train`` and ``eval`` reach everything inside."""


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block, and gradients possible even under ``torch.inference_mode``; then every mode as it was."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def has_numbers(tensor: Tensor) -> bool:
    """Whether values can be looked at: not on the meta device, of fake tensors, while torch compiles, or under ``torch.func``."""
    within = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    return not (within or tensor.is_meta or isinstance(tensor, FakeTensor))


def check_images(net: Any, images: Tensor) -> None:
    """Raises ValueError, in one line, where this is no network, or these are not images ``[n, *shape]`` as it takes them."""
    if not hasattr(net, "segment"):
        advice = "give the network inside it, or see dynlib.FromLogits"
        raise ValueError(f"a {type(net).__name__} is no network of this library: {advice}")
    if not isinstance(images, Tensor):
        raise ValueError(f"images are a {type(images).__name__}: need a tensor")
    if images.dim() != 4 or tuple(images.shape[1:]) != net.shape or images.dtype != net.dtype:
        need = f"{net.dtype} [n, {', '.join(map(str, net.shape))}]"
        raise ValueError(f"images are {images.dtype} {list(images.shape)}: need {need}")
    if images.numel() and has_numbers(images):
        low, high = images.aminmax()
        if not (low >= 0) & (high <= 1):  # so that NaN is refused, too
            raise ValueError("images are outside [0, 1], or not finite; the network itself normalises them")


def check_labels(labels: Tensor, n: int, classes: int) -> None:
    """Raises ValueError, in one line, where these are not the labels of ``n`` images."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels are a {type(labels).__name__}: need a tensor")
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}: need torch.int64 [{n}]")
    if n and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(f"labels are outside 0 to {classes - 1}")


def check_logits(logits: Tensor) -> None:
    """Raises ValueError for a logit that is infinite or not a number."""
    if has_numbers(logits) and not logits.isfinite().all():
        raise ValueError("a logit is not finite: the network's weights or its input are damaged")


def without_prefix(state: Mapping[str, Any], known: str) -> dict[str, Any]:
    """A network's state with the names that it has by itself.

    ``DataParallel``, ``torch.compile`` and the wrappers here put something before each name.

    Args:
        state: of a network, whatever it is wrapped in.
        known: the name of one of the network's own tensors.
    """
    found = [name.removesuffix(known) for name in state if name.endswith(f".{known}")]
    prefix = found[0] if len(found) == 1 and known not in state else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
