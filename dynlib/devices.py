"""Torch devices: whether they are here, and what records and cards call them."""

import platform

import torch


def check_device(device: str | torch.device) -> None:
    """Raises ValueError, in one line, where torch has no such device here."""
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises one or another
        raise ValueError(f"device {device!r} cannot be used here: {str(error).split('. ')[0].rstrip('.')}") from None


def is_cpu(device: str | torch.device) -> bool:
    return torch.device(device).type == "cpu"


def hardware(device: str | torch.device) -> str:
    """What computes, such as ``"CPU core (AVX512)"``, or the name of a GPU. Errors as for ``check_device``."""
    check_device(device)
    if is_cpu(device):
        return f"CPU core ({torch.backends.cpu.get_cpu_capability()})"
    kind = torch.device(device).type
    if kind == "mps":
        return f"Apple GPU ({platform.machine()})"
    named = getattr(torch.get_device_module(kind), "get_device_name", None)
    return named(device) if named else f"{kind} device"
