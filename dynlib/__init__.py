"""A thin library of dynamic networks, their exit mechanisms and attacks on them; companion to arXiv:2308.08709.

net = dynlib.load("resnet56", "cifar10", "dynn", seed=1)       # a trained network; net(images) is [exits, batch, classes]
test = dynlib.data.load("cifar10", "test", 100)        # images and labels
result = dynlib.attacks.PGD(loss="taken")(net, test.inputs, test.labels)
dynlib.ConfidenceExit(0.9).run(net, result.adversarial).label
"""

from dynlib import attacks, data
from dynlib.adapter import FromLogits
from dynlib.mechanisms import Answers, ConfidenceExit, Deployed, Mechanism
from dynlib.networks.checkpoints import load
from dynlib.networks.exits import MultiExitNetwork, build

__version__ = "0.1.0"
__all__ = [
    "Answers",
    "ConfidenceExit",
    "Deployed",
    "FromLogits",
    "Mechanism",
    "MultiExitNetwork",
    "attacks",
    "build",
    "data",
    "load",
]
