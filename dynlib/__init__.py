"""A thin library of dynamic networks, their exit mechanisms and attacks on them; companion to arXiv:2308.08709.

net = dynlib.load("resnet56", "cifar10", "dynn")       # a trained network; net(images) is [exits, batch, classes]
test = dynlib.data.load("cifar10", "test", 100)        # images and labels
result = dynlib.attacks.PGD(loss="taken")(net, test.inputs, test.labels)
dynlib.ConfidenceExit(0.9).infer(net, result.adversarial).label
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "ConfidenceExit": "dynlib.mechanisms",
    "Deployed": "dynlib.mechanisms",
    "Mechanism": "dynlib.mechanisms",
    "MultiExitNetwork": "dynlib.exits",
    "attacks": None,
    "build": "dynlib.exits",
    "data": None,
    "load": "dynlib.checkpoints",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Import on first use: `python -m dynlib.data` must find its module not yet imported."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dynlib' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(home), name) if home else import_module(f"dynlib.{name}")
