"""Designs trained for real, beside the same exits of the network that was trained with all of them (C3)."""

import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.choices import clean_answers, static_attacks
from dynlib.analysis.design import Design, evaluate, exit_names
from dynlib.analysis.measured import Seen, measured
from dynlib.networks.identity import Network

FOR_ALL, FOR_THESE = "with all exits", "with these exits only"
PAIRS = (("early", "late"), ("sparse", "all"))  # whose robust accuracy is compared, first less second


def table(run: str) -> pd.DataFrame:
    """A row for each design and way it was ``trained``, under a separate SDNN's examples of C3's main reading, on test images.

    The ``network`` has the design's exits. ``clean`` and ``robust`` are accuracies as deployed with Wilson intervals, ``macs`` the
    mean cost on clean images, and ``per_image`` whether attacked images are classified correctly, ``[n]``. Empty where a run has no
    network that was trained with some of the exits.
    """
    mechanism, clean, attacked, rows = measured(run, "transfer").mechanism, clean_answers(run, "test"), _attacked(run), []
    for network in attacked:
        whole = network.sibling(exits="all")
        exits = (*network.exit_indices, len(attacked[whole].answers) - 1)
        own = tuple(range(len(exits)))
        for trained, shown, kept in ((FOR_ALL, whole, exits), (FOR_THESE, network, own)):
            truth = attacked[shown].truth
            quiet = evaluate(shown, clean[shown].answers.images(slice(len(truth))), Design(kept, mechanism))
            still = (evaluate(shown, attacked[shown].answers, Design(kept, mechanism)).label == truth).numpy()
            numbers = stats.rate((quiet.label == truth).numpy()).columns("clean", "clean_")
            numbers |= stats.rate(still).columns("robust")
            numbers |= {"macs": quiet.cost.double().mean().item(), "n": len(still)}
            about = {"network": network, "exits": exit_names(exits), "trained": trained}
            rows.append({**about, **numbers, "per_image": still.astype(float)})
    return pd.DataFrame(rows)


def _attacked(run: str) -> dict[Network, Seen]:
    """By target; the networks with all exits first, and only of cells where others were trained, too."""
    if not any(network.exits not in ("none", "all") for network in measured(run, "transfer").profile.networks):
        return {}
    attacks, found = {(source, name) for source, _, name in static_attacks(run)}, {}
    for seen in measured(run, "transfer").seen("test"):
        of_cell = not seen.target.is_static and seen.source == seen.target.static
        if of_cell and seen.target.trained == "joint" and (seen.source, seen.attack) in attacks:
            found[seen.target] = seen
    trained = {network.sibling(exits="all") for network in found if network.exits != "all"}
    return {network: seen for network, seen in found.items() if network.sibling(exits="all") in trained}


def gains(found: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy of one design less another's on the same images, with its interval: a row for each of ``PAIRS`` and training.

    ``lost`` is clean accuracy lost and ``added`` the cost added as a share; ``first`` and ``second`` name the exits. Rows of
    ``table``.
    """
    rows = {(row.network, row.trained): row for row in found.itertuples()}
    compared = []
    for whole in dict.fromkeys(network.sibling(exits="all") for network in found.network):
        for trained in (FOR_ALL, FOR_THESE):
            for names in PAIRS:
                first, second = (rows.get((whole.sibling(exits=exits), trained)) for exits in names)
                if first and second:
                    numbers = stats.mean(first.per_image - second.per_image).columns("gain")
                    about = {"network": whole, "first": first.exits, "second": second.exits, "trained": trained}
                    price = {"lost": second.clean - first.clean, "added": first.macs / second.macs - 1}
                    compared.append({**about, **numbers, **price})
    return pd.DataFrame(compared)
