"""The lesson: its checks tell right from wrong, and what learners get is the solutions without the solutions."""

import re

import nbformat
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dynlib import lesson, plots
from dynlib.analysis.measured import Seen, costs
from dynlib.analysis.robustness import over_threshold
from dynlib.attacks.losses import EARLY_VARIANTS, early_objective
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.exits import internal_classifier
from dynlib.networks.identity import Network
from workflow.lesson import LESSON, SOLUTIONS, stripped


def pooled(channels, side, classes, pool=None, last=None):
    pool = pool or nn.AdaptiveAvgPool2d(4)
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels * 16, classes), last or nn.Identity())


class OverChannels(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(16, classes)

    def forward(self, x):
        return self.linear(F.adaptive_avg_pool2d(x.mean(dim=1), 4).flatten(1))


class AcrossBatch(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        x = x.mean(dim=(2, 3))
        return self.linear(x - x.mean(dim=0))


def untrained(channels, side, classes):
    return pooled(channels, side, classes).requires_grad_(False)


def rule(logits, threshold, scores=None, fall_back=None, first=True, strict=False, label_of=None):
    """The exit rule, with one thing or another done wrong."""
    confidence, label = (logits.softmax(dim=-1) if scores is None else scores).max(dim=-1)
    confident = confidence > threshold if strict else confidence >= threshold
    exits = confident.int().argmax(dim=0) if first else len(logits) - 1 - confident.flip(0).int().argmax(dim=0)
    back = confidence.argmax(dim=0) if fall_back is None else torch.full_like(exits, fall_back)
    exit = torch.where(confident.any(dim=0), exits, back)
    return label[exit if label_of is None else label_of, torch.arange(logits.shape[1])], exit


def step(loss, adversarial, images, eps, step_size, sign=1, project=True, clamp=True, centre=None, at=None, move=torch.sign):
    """The attack step, with one thing or another done wrong."""
    here = (adversarial if at is None else at(images)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(here).sum(), here)
    moved = adversarial + sign * step_size * move(gradient)
    if project:
        middle = images if centre is None else adversarial
        moved = middle + (moved - middle).clamp(-eps, eps)
    return moved.clamp(0, 1) if clamp else moved


def with_graph(loss, adversarial, images, eps, step_size):
    here = adversarial.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(here).sum(), here)
    return (images + (here + step_size * gradient.sign() - images).clamp(-eps, eps)).clamp(0, 1)


def in_place(loss, adversarial, images, eps, step_size):
    adversarial.copy_(step(loss, adversarial, images, eps, step_size))
    return adversarial


def early(logits, labels, scores=None, exits=slice(None, -1), final=1.0, sign=1.0):
    """The Early Attack's loss in log-probabilities, with one thing or another done wrong."""
    scores = logits.log_softmax(dim=-1) if scores is None else scores
    own = scores.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]
    return sign * (final * own[-1] - own[exits].sum(dim=0))


def leaving(logits, labels):
    own = logits.softmax(dim=-1).gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]
    return own[-1].log() + (1 - own[:-1]).log().sum(dim=0)


def worst(logits, labels):
    """A hinge: exits that have their goal have no gradient, nor has any early one but the worst."""
    index = labels.expand(len(logits), -1)[..., None]
    lead = (logits.gather(-1, index) - logits.scatter(-1, index, -torch.inf).amax(dim=-1, keepdim=True))[..., 0]
    return -lead[:-1].amax(dim=0).relu() - (-lead[-1]).relu()


def wrong_exits(logits, labels):
    left = (logits[:-1].argmax(dim=-1) != labels).sum(dim=0)
    return (left * (logits[-1].argmax(dim=-1) == labels)).float()


def sure_of_anything(logits, labels):
    return early(logits, labels, final=0) + logits[-1].log_softmax(dim=-1).amax(dim=-1)


def cross_entropy(logits, labels):
    return torch.stack([F.cross_entropy(exit, labels, reduction="none") for exit in logits]).mean(dim=0)


def slow(logits, labels, scores=None, exits=slice(None, -1)):
    """The loss of an attack on speed, with one thing or another done wrong."""
    scores = logits.log_softmax(dim=-1) if scores is None else scores
    return scores[exits].mean(dim=-1).sum(dim=0)


def allowed(table, start, lost=0.02 + 1e-9, cost=True):
    return table[(table.clean >= start.clean - lost) & ((table.macs <= start.macs) | (not cost))]


def within_two(table, start):
    near = table[(table.clean - start.clean).abs() <= 0.02]
    near = near[near.macs <= start.macs]
    return near.loc[near.robust.idxmax()]


CHECKS = {
    1: lesson.check_exit_head,
    2: lesson.check_exit_rule,
    3: lesson.check_attack_step,
    4: lesson.check_transfer,
    5: lesson.check_early_loss,
    6: lesson.check_choice,
    7: lesson.check_slow_loss,
}

RIGHT = {
    "adaptive pooling": (1, pooled),
    "max pooling": (1, lambda c, s, n: pooled(c, s, n, nn.MaxPool2d(s // 4))),
    "global pooling": (1, lambda c, s, n: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, n))),
    "the library's head": (1, internal_classifier),
    "by hand": (2, rule),
    "the library's rule": (2, lambda logits, t: ConfidenceExit(t).decide(Answers.of(logits), torch.arange(len(logits)))[:2]),
    "projected step": (3, step),
    "clamp, then ball": (3, lambda f, x, o, e, s: step(f, x, o, e, s, project=False).clamp(o - e, o + e)),
    "counted by hand": (4, lambda s, t, a, y: (((a != y) & (s == y) & (t == y)).sum(), ((s == y) & (t == y)).sum())),
    "log-probabilities": (5, early),
    "final exit weighted": (5, lambda logits, y: early(logits, y, final=6.0)),
    "as published": (5, lambda logits, y: -early_objective(logits, y, alpha=1.0)),
    "as published, small alpha": (5, lambda logits, y: -early_objective(logits, y, alpha=0.01)),
    "cross-entropies": (
        5,
        lambda logits, y: len(logits) * cross_entropy(logits, y) - 2 * F.cross_entropy(logits[-1], y, reduction="none"),
    ),
    "probabilities": (5, lambda logits, y: early(logits, y, logits.softmax(dim=-1))),
    "log-probabilities of leaving": (5, leaving),
    "the worst exit": (5, worst),
    "margins": (5, lambda logits, y: EARLY_VARIANTS["early=margin/equal"](logits, y, ConfidenceExit())),
    "weighted by confidence": (
        5,
        lambda logits, y: EARLY_VARIANTS["early=log-probability/confidence"](logits, y, ConfidenceExit()),
    ),
    "towards uniform": (7, slow),
    "mean over exits": (7, lambda x, y: slow(x, y) / 3),
    "entropy": (7, lambda x, y: torch.distributions.Categorical(logits=x[:-1]).entropy().sum(dim=0)),
    "largest probability": (7, lambda x, y: -x[:-1].softmax(dim=-1).amax(dim=-1).sum(dim=0)),
    "the surest exit": (7, lambda x, y: -x[:-1].softmax(dim=-1).amax(dim=-1).square().sum(dim=0)),
    "most robust allowed": (6, lambda t, start: allowed(t, start).sort_values("robust").iloc[-1]),
}

WRONG = {
    "no pooling": (1, lambda c, s, n: nn.Sequential(nn.Flatten(), nn.Linear(c * s * s, n)), "pool these to 4x4"),
    "fixed kernel": (
        1,
        lambda c, s, n: nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(c * (s // 4) ** 2, n)),
        "pool these to 4x4",
    ),
    "another side": (1, lambda c, s, n: pooled(c, s, n, nn.MaxPool2d(4)), "it stops with RuntimeError"),
    "softmax": (1, lambda c, s, n: pooled(c, s, n, last=nn.Softmax(dim=-1)), "raw scores"),
    "log-softmax": (1, lambda c, s, n: pooled(c, s, n, last=nn.LogSoftmax(dim=-1)), "log-softmax"),
    "relu": (1, lambda c, s, n: pooled(c, s, n, last=nn.ReLU()), "no ReLU"),
    "always ten classes": (1, lambda c, s, n: pooled(c, s, 10), r"gives \[6, 10\], not \[6, 100\]"),
    "not flat": (1, lambda c, s, n: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Linear(4, n)), r"not \[6, 10\]"),
    "over channels": (1, lambda c, s, n: OverChannels(n), "not over channels"),
    "across the batch": (1, lambda c, s, n: AcrossBatch(c, n), "other images of the batch"),
    "nothing to train": (1, untrained, "0 weights"),
    "logits, not a module": (1, lambda c, s, n: torch.zeros(6, n), "return the module"),
    "most confident": (2, lambda x, t: rule(x, 1.1), "the most confident exit answers; it should"),
    "last confident": (2, lambda x, t: rule(x, t, first=False), "wrong exits"),
    "always the final": (2, lambda x, t: rule(x, 1.1, fall_back=4), "wrong exits"),
    "always the first": (2, lambda x, t: rule(x, 1.1, fall_back=0), "wrong exits"),
    "no softmax": (2, lambda x, t: rule(x, t, x), "wrong exits"),
    "softmax over exits": (2, lambda x, t: rule(x, t, x.softmax(dim=0)), "wrong exits"),
    "softmax over images": (2, lambda x, t: rule(x, t, x.softmax(dim=1)), "wrong exits"),
    "falls back to the final": (2, lambda x, t: rule(x, t, fall_back=len(x) - 1), "where no exit reaches"),
    "falls back to the first": (2, lambda x, t: rule(x, t, fall_back=0), "where no exit reaches"),
    "the final exit's label": (2, lambda x, t: rule(x, t, label_of=-1), "the labels are not"),
    "above, not at": (2, lambda x, t: rule(x, t, strict=True), "equals the threshold"),
    "exits from 1": (2, lambda x, t: (rule(x, t)[0], rule(x, t)[1] + 1), "wrong exits"),
    "label only": (2, lambda x, t: rule(x, t)[0], "two tensors"),
    "the other order": (2, lambda x, t: rule(x, t)[::-1], "wrong exits"),
    "downhill": (3, lambda *a: step(*a, sign=-1), "downhill"),
    "no ball": (3, lambda *a: step(*a, project=False), "further than eps"),
    "ball around where it is": (3, lambda *a: step(*a, centre="adversarial"), "further than eps"),
    "no clamp": (3, lambda *a: step(*a, clamp=False), r"outside \[0, 1\]"),
    "gradient at the image": (3, lambda *a: step(*a, at=lambda images: images), "take the gradient where you are"),
    "no sign": (3, lambda *a: step(*a, move=lambda g: g), "times the sign"),
    "sign over norm": (3, lambda *a: step(*a, move=lambda g: g / g.norm()), "times the sign"),
    "from the image": (3, lambda f, x, o, e, s: step(f, o, o, e, s), "elsewhere"),
    "full radius": (3, lambda f, x, o, e, s: step(f, x, o, e, e), "elsewhere"),
    "stays": (3, lambda f, x, o, e, s: x.clone(), "elsewhere"),
    "with its graph": (3, with_graph, "detach"),
    "in place": (3, in_place, "work on a copy"),
    "every image": (4, lambda s, t, a, y: ((a != y).sum(), len(y)), "every image"),
    "source right": (4, lambda s, t, a, y: (((s == y) & (a != y)).sum(), (s == y).sum()), "what the source gets right"),
    "target right": (4, lambda s, t, a, y: (((t == y) & (a != y)).sum(), (t == y).sum()), "what the target gets right"),
    "those that are still right": (
        4,
        lambda s, t, a, y: (((s == y) & (t == y) & (a == y)).sum(), ((s == y) & (t == y)).sum()),
        "still right",
    ),
    "fooled of all": (4, lambda s, t, a, y: ((a != y).sum(), ((s == y) & (t == y)).sum()), "among the images that count"),
    "agree, right or wrong": (4, lambda s, t, a, y: (((s == t) & (a != y)).sum(), (s == t).sum()), "where it should be"),
    "a rate": (4, lambda s, t, a, y: ((s == y) & (t == y) & (a != y)).double().mean(), "two numbers"),
    "sign flipped": (5, lambda x, y: early(x, y, sign=-1), "turn the sign"),
    "final exit forgotten": (5, lambda x, y: early(x, y, final=0), "the final exit must keep it"),
    "final exit pushed, too": (5, lambda x, y: early(x, y, final=-1), "the final exit must keep it"),
    "plain cross-entropy": (5, cross_entropy, "the final exit must keep it"),
    "only the final exit": (5, lambda x, y: early(x, y, exits=slice(0, 0)), "no higher"),
    "only the first exit": (5, lambda x, y: early(x, y, exits=slice(0, 1)), "exit 2 of 3"),
    "last early exit forgotten": (5, lambda x, y: early(x, y, exits=slice(None, -2)), "exit 3 of 3"),
    "first exit forgotten": (5, lambda x, y: early(x, y, exits=slice(1, -1)), "exit 1 of 3"),
    "raw logits": (5, lambda x, y: early(x, y, x), "softmax over classes"),
    "over exits": (5, lambda x, y: early(x, y, x.log_softmax(dim=0)), "softmax over classes"),
    "over images": (5, lambda x, y: early(x, y, x.log_softmax(dim=1)), "other images"),
    "mean over images": (5, lambda x, y: early(x, y).mean(), "one number for each image"),
    "one number an exit": (5, lambda x, y: x.softmax(dim=-1).amax(dim=(1, 2)), "one number for each image"),
    "no gradient": (5, wrong_exits, "no gradient flows"),
    "final exit sure of anything": (5, sure_of_anything, "back to the label"),
    "final exit detached": (5, lambda x, y: early(torch.cat([x[:-1], x[-1:].detach()]), y), "back to the label"),
    "early exits detached": (5, lambda x, y: early(torch.cat([x[:-1].detach(), x[-1:]]), y), "off the label"),
    "uniform, downhill": (7, lambda x, y: -slow(x, y), "turn the sign"),
    "uniform, final exit too": (7, lambda x, y: slow(x, y, exits=slice(None)), "the final exit has a part"),
    "uniform, only the first exit": (7, lambda x, y: slow(x, y, exits=slice(0, 1)), "exit 2 of 3"),
    "uniform, first exit forgotten": (7, lambda x, y: slow(x, y, exits=slice(1, -1)), "exit 1 of 3"),
    "the label unlikely": (7, lambda x, y: early(x, y, final=0), "depends on the labels"),
    "uniform, raw logits": (7, lambda x, y: slow(x, y, x), "softmax over classes"),
    "uniform, over exits": (7, lambda x, y: slow(x, y, x.log_softmax(dim=0)), "softmax over classes"),
    "uniform, over images": (7, lambda x, y: slow(x, y, x.log_softmax(dim=1)), "other images"),
    "uniform, mean over images": (7, lambda x, y: slow(x, y).mean(), "one number for each image"),
    "how many are unsure": (7, lambda x, y: (x[:-1].softmax(dim=-1).amax(dim=-1) < 0.9).double().sum(dim=0), "no gradient flows"),
    "uniform, detached": (7, lambda x, y: slow(x, y).detach() + 0 * x.sum(dim=(0, 2)), "no gradient pulls"),
    "accuracy ignored": (6, lambda t, start: t.loc[allowed(t, start, lost=1).robust.idxmax()], "more than 2 points less accurate"),
    "points for shares": (6, lambda t, start: t.loc[allowed(t, start, lost=2).robust.idxmax()], "more than 2 points less accurate"),
    "no loss allowed": (6, lambda t, start: t.loc[allowed(t, start, lost=0).robust.idxmax()], "0.02 of a share"),
    "cost ignored": (6, lambda t, start: t.loc[allowed(t, start, cost=False).robust.idxmax()], "costs more"),
    "near in accuracy": (6, within_two, "no fault"),
    "most accurate": (6, lambda t, start: t.loc[allowed(t, start).clean.idxmax()], "the most accurate one"),
    "cheapest": (6, lambda t, start: t.loc[allowed(t, start).macs.idxmin()], "a cheap one"),
    "least robust": (6, lambda t, start: t.loc[allowed(t, start).robust.idxmin()], "is not the best"),
    "the default": (6, lambda t, start: t.loc[start.name], "it is the default"),
    "place for label": (6, lambda t, start: t.iloc[allowed(t, start).robust.argmax()], "is not the best"),
    "the table": (6, allowed, "one row"),
    "its name": (6, lambda t, start: allowed(t, start).robust.idxmax(), "one row"),
}


def seen(capsys, number, answer):
    """What a check gives back, and its line."""
    found = CHECKS[number](answer)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"exercise {number}: ")
    return found, line.removeprefix(f"exercise {number}: ")


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(capsys, name):
    number, answer = RIGHT[name]
    assert seen(capsys, number, answer) == (answer, "right")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_refused_with_a_hint(capsys, name):
    number, answer, hint = WRONG[name]
    found, line = seen(capsys, number, answer)
    assert found is not answer
    assert line.startswith("not right yet: ")
    assert re.search(hint, line), line


@pytest.mark.parametrize("number", CHECKS)
def test_untouched_and_broken_answers(capsys, number):
    """The lesson goes on with the library's own, which is right."""
    library, line = seen(capsys, number, lambda *given: ...)
    assert line.startswith("not done yet")
    assert seen(capsys, number, library) == (library, "right")
    other, line = seen(capsys, number, lambda *given: 1 / 0)
    assert other is library
    assert "it stops with ZeroDivisionError" in line


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_lesson_is_the_stripped_solutions():
    expected, shipped = stripped(nbformat.read(SOLUTIONS, as_version=4)), nbformat.read(LESSON, as_version=4)
    for mine, theirs in zip(expected.cells, shipped.cells, strict=True):
        assert (mine.cell_type, mine.source, mine.id, mine.metadata) == (
            theirs.cell_type,
            theirs.source,
            theirs.id,
            theirs.metadata,
        )
    assert not any("SOLUTION" in cell.source for cell in shipped.cells)


def test_seven_exercises_each_with_its_check():
    """In the solutions each is right, in the lesson none is done, and nbval holds both."""
    for path, line in ((SOLUTIONS, "right"), (LESSON, "not done yet")):
        cells = code(nbformat.read(path, as_version=4))
        checks = [number for number, cell in enumerate(cells) if "lesson.check_" in cell.source]
        assert len(checks) == len(CHECKS)
        for number, place in enumerate(checks, start=1):
            assert cells[place].metadata["tags"] == ["nbval-check-output"]
            assert cells[place].outputs[0].text.startswith(f"exercise {number}: {line}")
            assert f"exercise {number}" in cells[place - 1].source
            assert ("BEGIN SOLUTION" in cells[place - 1].source) == (path == SOLUTIONS)
    assert sum("BEGIN SOLUTION" in cell.source for cell in code(nbformat.read(SOLUTIONS, as_version=4))) == len(CHECKS)


def test_minutes_add_up():
    text = "\n".join(cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "markdown")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert sum(int(line.split("(")[1].split()[0]) for line in headings if "minutes)" in line) == 90


def test_widgets_leave_nothing_in_the_file():
    for path in (SOLUTIONS, LESSON):
        assert "application/vnd.jupyter.widget" not in path.read_text()
        (cell,) = [cell for cell in code(nbformat.read(path, as_version=4)) if "ipywidgets" in cell.source]
        assert cell.source.startswith("# NBVAL_IGNORE_OUTPUT\n")


def test_stripping_keeps_what_is_around():
    cell = nbformat.v4.new_code_cell("def f(x):\n    # BEGIN SOLUTION\n    y = x\n    return y\n    # END SOLUTION\n\nf(1)")
    (found,) = stripped(nbformat.v4.new_notebook(cells=[cell])).cells
    assert found.source == "def f(x):\n    ...  # your code\n\nf(1)"


class Made:
    """Records as ``over_threshold`` reads them."""

    def __init__(self, *seen, **attacks):
        self.seen, self.attacks = lambda: iter(seen), pd.DataFrame(attacks).set_index("name") if attacks else None


def test_robustness_over_the_threshold_by_hand():
    dynn = Network("cifar10", "resnet56")
    sdnn, last, truth = dynn.sibling(exits="none"), 6, torch.tensor([0, 1, 2, 3])

    def seen(source, attack, first, label=truth):
        """The first exit is as confident as said, all others are not at all; all answer the same."""
        confidence = torch.full((last + 1, len(first)), 0.1)
        confidence[0] = torch.tensor(first)
        return Seen(source, dynn, attack, truth, Answers(label.expand(last + 1, -1), *[confidence] * 3))

    attacked = torch.tensor([0, 0, 2, 3])
    clean = Made(seen(dynn, "none", [0.95] * 4)._replace(truth=torch.arange(4)))
    transfer = Made(
        seen(dynn, "near", [0.5] * 4),  # made on the dynamic network itself
        seen(sdnn, "other", [0.5] * 4),  # another method
        seen(sdnn, "near", [0.95, 0.95, 0.6, 0.2], attacked),
        seen(sdnn, "again", [0.5] * 4),  # another random start
        name=["near", "again", "other"],
        attack=["pgd", "pgd", "fgsm"],
        eps_255=[2.0, 2.0, 8.0],
    )
    table = over_threshold(transfer, clean, (0.5, 0.9))
    first, full = (costs(dynn)[[0, -1]] / costs(dynn)[-1]).tolist()
    assert set(table.target) == {dynn}
    assert list(zip(table.eps_255, table.threshold, strict=True)) == [(0, 0.5), (0, 0.9), (2, 0.5), (2, 0.9)]
    assert table.accuracy.tolist() == [1, 1, 0.75, 0.75]
    assert (table.low < table.accuracy).all()
    assert table.high.tolist()[2] > 0.75
    assert table.n.tolist() == [4] * 4
    assert table.cost.tolist() == pytest.approx([first, first, (3 * first + full) / 4, (2 * first + 2 * full) / 4])


def test_robustness_panels_have_a_curve_for_each_radius():
    networks = [Network(dataset, model) for dataset in ("cifar10", "cifar100") for model in ("resnet56", "mobilenet")]
    shares = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "cost": 0.7}
    rows = [{"target": n, "eps_255": eps, "threshold": t, **shares} for n in networks for eps in (8, 0, 2) for t in (0.9, 0.5)]
    fig = plots.robustness_panels(pd.DataFrame(rows))
    titles = [f"{model}, {dataset}, DyNN" for dataset in ("CIFAR-10", "CIFAR-100") for model in ("ResNet-56", "MobileNet")]
    assert [axes.get_title() for axes in fig.axes if axes.get_title()] == titles
    assert [len(axes.lines) for axes in fig.axes if not axes.get_title()] == [3] * 4  # cost
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["clean", "2/255", "8/255"]
