"""The measurements: a function each, arguments in, per-image records or tensors out."""

from dynlib.experiments.clean import outputs, timing
from dynlib.experiments.common import grid
from dynlib.experiments.rq1 import efficiency, transferability
from dynlib.experiments.rq2 import exit_design
from dynlib.experiments.rq3 import attack_design, early_attack, published_attack

EXPERIMENTS = {
    function.__name__: function
    for function in (
        transferability,
        efficiency,
        outputs,
        exit_design,
        early_attack,
        published_attack,
        attack_design,
        timing,
    )
}

__all__ = ["EXPERIMENTS", "grid", *EXPERIMENTS]
