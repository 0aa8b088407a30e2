"""Dynamic inference: how much of what it saves in MACs it saves in time."""

import dynlib
from benchmarks.rounds import MODELS, Scale, Table
from dynlib.mechanisms import ConfidenceExit
from dynlib.networks.backbones import MODELS as BACKBONES
from dynlib.networks.checkpoints import CHEAPEST
from dynlib.networks.identity import Network
from dynlib.profiles import Timing
from dynlib.timing import measure

BATCHES = (1, 32, 256)
GOAL = 0.8  # at the largest batch


def tables(scale: Scale) -> list[Table]:
    rows = []
    for model in MODELS:
        network = Network.of(model, "cifar10", "dynn")
        threshold = dynlib.load(model, "cifar10", "dynn").card["operating_points"]["most_confident"][CHEAPEST]["threshold"]
        settings = Timing(images=max(BATCHES), batches=list(BATCHES), rounds=scale.rounds)
        for row in measure(network, settings, ConfidenceExit(threshold), "cpu").itertuples():
            share = row.macs_ratio / row.time_ratio
            goal = (f"at least {GOAL:g}", "yes" if share >= GOAL else "no") if row.batch == max(BATCHES) else ("", "")
            cells = (f"{row.macs_ratio:.2f}", f"{row.time_ratio:.2f} ({row.low:.2f} to {row.high:.2f})", f"{share:.2f}", *goal)
            rows.append((BACKBONES[model].display, threshold, row.batch, *cells))
    text = (
        f"The dynamic networks of CIFAR-10 at the lowest threshold with {CHEAPEST} (see the cards), beside the folded static"
        f" network of their cell, on {max(BATCHES)} test images. A gain is what the static network takes over what the dynamic one"
        " does. The gain in time over that in MACs is 1 where every multiplication saved is time saved."
    )
    columns = (
        "network",
        "threshold",
        "batch",
        "MACs, dynamic / static",
        "time, dynamic / static",
        "gain, time / MACs",
        "goal",
        "met",
    )
    return [Table("Dynamic inference", text, columns, rows)]
