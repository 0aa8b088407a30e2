"""The measurements: a function each, arguments in, per-image records or tensors out."""

from dynlib.experiments.clean import outputs, timing
from dynlib.experiments.common import grid
from dynlib.experiments.rq1 import efficiency, transferability
from dynlib.experiments.rq2 import exit_design, retrained
from dynlib.experiments.rq3 import attack_design, early_attack, published_attack

EXPERIMENTS = {
    "transferability": transferability,
    "same_backbone": transferability,  # between a static network and the exits that were trained on it
    "efficiency": efficiency,
    "outputs": outputs,
    "exit_design": exit_design,
    "retrained": retrained,
    "early_attack": early_attack,
    "published_attack": published_attack,
    "attack_design": attack_design,
    "timing": timing,
}
# Those whose main reading is measured again, from another random start.
RESTARTS = {f"{name}_restart": name for name in ("efficiency", "exit_design", "early_attack", "attack_design")}
EXPERIMENTS |= {restart: EXPERIMENTS[name] for restart, name in RESTARTS.items()}

__all__ = ["EXPERIMENTS", "RESTARTS", "grid", *(function.__name__ for function in EXPERIMENTS.values())]
