"""The command that audits anyone's network, and the page that it writes, with its figures."""

import argparse
import base64
import sys
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import mistune
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from dynlib.adapter import FromLogits
from dynlib.analysis import stats
from dynlib.analysis.stats import Estimate
from dynlib.audit import ANSWERING, CLEAN, FINAL, SPEED, SURFACE, AuditError, answers, load_data, load_module, measure
from dynlib.figures import COLUMN, style, whiskers
from dynlib.files import atomic
from dynlib.mechanisms import Answers, ConfidenceExit

HOW = """\
* {n} images of {classes} classes, drawn at random from the file. In brackets: 95 % intervals over images, Wilson's of rates, and of
  costs the bootstrap's (under 100 images Student's).
* As deployed: an image stops at the first exit whose largest softmax probability is at least {threshold:g}. Where none is so sure,
  the whole network has run, and the surest exit answers.
* {costs} The module itself was always run whole.
* All attacks know the weights and the threshold. They stay in the L-infinity ball of the radius, and take steps of a quarter of
  it from a random start. PGD climbs the cross-entropy of the exit named, in 20 steps. Early PGD, 20 steps, lowers the label at
  all early exits and keeps it at the final one. The slowdown, 30 steps, pushes all early exits to the uniform distribution.
"""
GIVEN = "The costs of the exits are as given."
COUNTED = """Exit k of {n} is taken to cost the share k/{n} of a full run. That is {macs:,} multiply-accumulates, as torch's
  FlopCounterMode counts them. `--costs` gives better ones."""


def percent(estimate: Estimate) -> str:
    """Such as ``"81.0 [75.0, 85.8]"``: a share in percent, its interval inside 0 and 100."""
    value, low, high = (100 * np.clip(part, 0, 1) for part in estimate)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def exits_table(net: FromLogits, seen: Answers, labels: Tensor, left: np.ndarray) -> list[str]:
    """Each exit on clean images, in Markdown."""
    lines = [
        "| exit | cost (% of a full run) | accuracy, if it answered alone (%) | images that stop here (%) |",
        "|---|---|---|---|",
    ]
    for k, cost in enumerate(100 * net.macs / net.macs[-1]):
        accuracy, stop = stats.rate((seen.label[k] == labels).numpy()), stats.rate(left == k)
        lines.append(f"| {k + 1} | {cost:.1f} | {percent(accuracy)} | {percent(stop)} |")
    return lines


def attacks_table(table: pd.DataFrame) -> list[str]:
    """Every attack and radius, in Markdown."""
    head = (
        "accuracy of the final exit (%) | accuracy as deployed (%) | only the network as deployed errs (%) | cost (% of a full run)"
    )
    lines = [f"| attack | radius | {head} |", "|---|---|---|---|---|---|"]
    for row in table.itertuples():
        rates = " | ".join(percent(stats.rate(hits)) for hits in (row.final, row.deployed, row.only_deployed))
        lines.append(f"| {row.attack} | {row.radius:g}/255 | {rates} | {percent(stats.mean(row.cost))} |")
    return lines


def findings(table: pd.DataFrame) -> list[str]:
    """What the audit saw at the largest radius: three sentences."""
    rows, radius = table[table.radius.isin((0, table.radius.max()))].set_index("attack"), f"{table.radius.max():g}/255"
    clean, slowed = rows.cost[CLEAN], rows.cost[SPEED]
    apart = stats.mean(rows.deployed[ANSWERING].astype(float) - rows.final[FINAL])
    verdict = "more" if apart.low > 0 else "less" if apart.high < 0 else "neither more nor less"
    saved, kept = 1 - clean.mean(), 1 - slowed.mean()
    lost = f", so {100 * (1 - kept / saved):.0f} % of the saving is gone" if saved > 0 else ""
    opened = percent(stats.rate(rows.only_deployed[SURFACE]))
    return [
        f"Each attacked at radius {radius} by PGD on the exit that answers, the network as deployed is {verdict} robust than its "
        f"final exit alone, as far as {len(clean)} images tell: {stats.points(*apart)}.",
        f"Early PGD at {radius} makes only the network as deployed err, with its final exit right, on {opened} % of the images; "
        f"without an attack it is {percent(stats.rate(rows.only_deployed[CLEAN]))} %.",
        f"The slowdown at {radius} takes the efficacy (the share of a full run that leaving early saves) from {100 * saved:.1f} % "
        f"to {100 * kept:.1f} %{lost}: a clean image costs {percent(stats.mean(clean))} % of a full run, an attacked one "
        f"{percent(stats.mean(slowed))} %.",
    ]


def page(network: str, how: str, net: FromLogits, seen: Answers, labels: Tensor, table: pd.DataFrame) -> str:
    """The report in Markdown."""
    lines = [f"# Audit of `{network}`", "", *(f"* {sentence}" for sentence in findings(table)), ""]
    lines += ["![accuracy over the radius](accuracy.png) ![images answered over cost](cost.png)", "", "## Attacks", ""]
    lines += [*attacks_table(table), "", "## Exits, on clean images", "", *exits_table(net, seen, labels, table["left"][0]), ""]
    lines += ["## How it was measured", "", how.rstrip()]
    if stuck := int(table.stuck.sum()):
        lines.append(
            f"* {stuck} attacked images had a gradient of zero at every step: they were not attacked, which is no robustness."
        )
    return "\n".join([*lines, ""])


def accuracy_figure(table: pd.DataFrame) -> Figure:
    """Accuracy over the radius, of the final exit and as deployed, each attacked at the exit that answers."""
    fig, axes = plt.subplots(figsize=(COLUMN, 2.4))
    for name, attack, column, marker in (("final exit alone", FINAL, "final", "o"), ("as deployed", ANSWERING, "deployed", "s")):
        rows = table[table.attack.isin((CLEAN, attack))].sort_values("radius")
        curve = pd.DataFrame([stats.rate(hits) for hits in rows[column]])
        axes.errorbar(rows.radius, 100 * curve.value, whiskers(curve, "value"), capsize=2, marker=marker, label=name)
    axes.set(xlabel="radius (255ths)", ylabel="accuracy (%)", ylim=(-3, 103))
    axes.legend()
    return fig


def cost_figure(table: pd.DataFrame) -> Figure:
    """The share of images that have been answered over the cost, clean and slowed down."""
    fig, axes = plt.subplots(figsize=(COLUMN, 2.4))
    rows = table[table.attack.isin((CLEAN, SPEED))].sort_values("radius")
    for row, colour in zip(rows.itertuples(), sns.color_palette("flare", len(rows)), strict=True):
        axes.ecdf(100 * row.cost, color=colour, label=f"slowed down, {row.radius:g}/255" if row.radius else "clean")
    axes.set(xlabel="computation spent (% of a full run)", ylabel="images answered (%)", xlim=(0, 103))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    axes.legend()
    return fig


def write(folder: Path, text: str, figures: dict[str, Figure]) -> None:
    """``REPORT.md`` and its figures, and ``REPORT.html`` with the figures inside."""
    html = str(mistune.html(text))
    for name, fig in figures.items():
        with atomic(folder / name) as temporary:
            fig.savefig(temporary)
            inline = base64.b64encode(temporary.read_bytes()).decode()
        plt.close(fig)
        html = html.replace(f'src="{name}"', f'width="420" src="data:image/png;base64,{inline}"')
    look = "body {font: 16px sans-serif; max-width: 960px; margin: 2em auto} td, th {padding: 2px 10px; text-align: left}"
    html = f'<!doctype html><meta charset="utf-8"><title>Audit</title><style>{look}</style>\n{html}'
    for name, content in (("REPORT.md", text), ("REPORT.html", html)):
        with atomic(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib audit", description="Audit a network of your own with early exits.")
    parser.add_argument("network", help="module:function; what it returns gives a list of logits, one of each exit")
    parser.add_argument(
        "--data", type=Path, required=True, help=".npz: images, uint8 or float in [0, 1], [n, c, h, w]; labels, [n]"
    )
    parser.add_argument("--images", type=int, default=200, help="at most so many (%(default)s)")
    parser.add_argument("--threshold", type=float, default=0.9, help="of the confidence to leave with (%(default)s)")
    parser.add_argument("--eps", type=Fraction, nargs="+", default=[Fraction(2, 255), Fraction(8, 255)], help="radii (2/255 8/255)")
    parser.add_argument("--costs", type=float, nargs="+", help="of leaving at each exit, in any unit (by default by its depth)")
    parser.add_argument("--out", type=Path, default=Path("audit"), help="folder of the report (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        (images, labels), mechanism = load_data(given.data, given.images), ConfidenceExit(given.threshold)
        net = FromLogits(load_module(given.network).eval(), images, given.costs)
        table = measure(net, images, labels, mechanism, sorted({float(eps) for eps in given.eps}))
        seen = answers(net, images)
    except (AuditError, ValueError) as error:
        sys.exit(f"error: {error}")
    costs = GIVEN if given.costs else COUNTED.format(n=net.n_exits, macs=int(net.macs[-1]))
    how = HOW.format(n=len(labels), classes=net.n_classes, threshold=given.threshold, costs=costs)
    style()
    figures = {"accuracy.png": accuracy_figure(table), "cost.png": cost_figure(table)}
    write(given.out, page(given.network, how, net, seen, labels, table), figures)
    print(f"{given.out / 'REPORT.md'} and {given.out / 'REPORT.html'}")
