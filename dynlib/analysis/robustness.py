"""What the threshold of confidence exits does to accuracy, robust accuracy and cost."""

from collections.abc import Iterator, Sequence

import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records, Seen, costs
from dynlib.mechanisms import ConfidenceExit


def over_threshold(transfer: Records, clean: Records, thresholds: Sequence[float], method: str = "pgd") -> pd.DataFrame:
    """Dynamic networks over the threshold: on clean images, and on examples made on the static network of their cell.

    A row for each ``target``, radius ``eps_255`` (0: clean) and ``threshold``: ``accuracy`` with its Wilson interval, and the mean
    ``cost`` as a share of a full run. Of several attacks at one radius (other random starts, say) the first is taken.
    """
    found = []
    for radius, seen in _made_on_static(transfer, clean, method):
        full = costs(seen.target)
        for threshold in thresholds:
            decision = ConfidenceExit(threshold).decide(seen.answers, full)
            right = (decision.label == seen.truth).numpy()
            cost = decision.cost.double().mean().item() / full[-1].item()
            found.append((seen.target, radius, threshold, len(right), *stats.rate(right), cost))
    return pd.DataFrame(found, columns=["target", "eps_255", "threshold", "n", "accuracy", "low", "high", "cost"])


def _made_on_static(transfer: Records, clean: Records, method: str) -> Iterator[tuple[float, Seen]]:
    """Radius and answers: for each dynamic network the clean images once, and one attack at each radius."""
    cleans, radii, done = {seen.target: seen for seen in clean.seen()}, transfer.attacks.eps_255, set()
    methods = transfer.attacks.attack
    for seen in transfer.seen():
        network, radius = seen.target, float(radii[seen.attack])
        if network.is_static or seen.source != network.static or methods[seen.attack] != method:
            continue
        if (network, 0.0) not in done:
            done.add((network, 0.0))
            yield 0.0, seen._replace(answers=cleans[network].answers.images(slice(len(seen.truth))))
        if (network, radius) not in done:
            done.add((network, radius))
            yield radius, seen
