"""An audit of a network, an architecture and a kind of images that the library does not know."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dynlib import ConfidenceExit, FromLogits
from dynlib.attacks import PGD
from dynlib.report import audit
from tests.conftest import small_network

SIDE, CLASSES = 12, 4


def pictures(n, seed):
    """Grey images ``[n, 1, 12, 12]``, uint8: a bar across, a bar down, a plus or a cross, somewhere, in noise."""
    rng = np.random.default_rng(seed)
    labels, images = rng.integers(CLASSES, size=n), rng.normal(90, 30, (n, 1, SIDE, SIDE))
    for label, (image,) in zip(labels, images, strict=True):
        row, column, steps = *rng.integers(3, SIDE - 3, size=2), np.arange(-3, 3)
        if label in (0, 2):
            image[row, column + steps] += 80
        if label in (1, 2):
            image[row + steps, column] += 80
        if label == 3:
            image[row + steps, column + steps] += 80
            image[row + steps, column - steps] += 80
    return images.clip(0, 255).astype(np.uint8), labels


class Ladder(nn.Module):
    """Three convolutions of one width, each with an exit; it returns a list."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(i, 16, 3, padding=1) for i in (1, 16, 16))
        self.heads = nn.ModuleList(nn.Linear(16 * 9, CLASSES) for _ in self.blocks)

    def forward(self, x):
        logits = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x).relu()
            logits.append(head(nn.functional.adaptive_max_pool2d(x, 3).flatten(1)))
        return logits


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net, (images, labels) = Ladder(), map(torch.from_numpy, pictures(1500, 0))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(50):
            loss = sum(nn.functional.cross_entropy(logits, labels[batch]) for logits in net(images[batch].float() / 255))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder to work in, with data; modules imported from it are forgotten."""
    images, labels = pictures(120, 1)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def table(page, title):
    """Rows of the numbers in each row of a table of the report."""
    section = page.partition(f"## {title}")[2].partition("##")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")][1:]


def number(cell):
    return float(cell.split()[0])


def test_the_audit_measures_what_nothing_here_knows(files, trained, capsys):
    torch.save(trained, files / "weights.pt")
    (files / "mine.py").write_text("import torch\ndef make_net():\n    return torch.load('weights.pt', weights_only=False)\n")
    options = "--images 100 --threshold 0.8 --eps 2/255 16/255 --out here"
    audit.main(["mine:make_net", "--data", "data.npz", *options.split()])
    assert "here/REPORT.md" in capsys.readouterr().out
    page, html = ((files / "here" / name).read_text() for name in ("REPORT.md", "REPORT.html"))
    attacked, exits = table(page, "Attacks"), table(page, "Exits")
    assert len(attacked) == 1 + 2 * 4
    assert len(exits) == 3
    for cell in [cell for row in attacked for cell in row[2:]] + [cell for row in exits for cell in row[2:]]:
        value, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cell).groups())
        assert 0 <= low <= value <= high <= 100

    images, labels = pictures(120, 1)
    drawn = np.sort(np.random.default_rng(0).permutation(120)[:100])
    with torch.no_grad():
        p = torch.stack(trained(torch.from_numpy(images[drawn]).float() / 255)).softmax(dim=-1).numpy()
    confidence, answer = p.max(axis=-1), p.argmax(axis=-1)
    leaves = [next((k for k in range(3) if confidence[k, n] >= 0.8), None) for n in range(100)]
    given = [answer[confidence[:, n].argmax() if k is None else k, n] for n, k in enumerate(leaves)]
    clean, *rest = attacked
    assert clean[:2] == ["none", "0/255"]
    assert number(clean[2]) == 100 * (answer[2] == labels[drawn]).mean() > 80
    assert number(clean[3]) == 100 * (given == labels[drawn]).mean()
    assert number(clean[5]) == pytest.approx(np.mean([100 if k is None else 100 * (k + 1) / 3 for k in leaves]), abs=0.06)
    assert [number(row[3]) for row in exits] == [leaves.count(0), leaves.count(1), leaves.count(2) + leaves.count(None)]

    found = {(row[0], row[1]): [number(cell) for cell in row[2:]] for row in rest}
    for radius in ("2/255", "16/255"):
        assert found["PGD, exit answering", radius][1] < number(clean[3])
        assert found["slowdown", radius][3] > number(clean[5])
    assert found["PGD, exit answering", "16/255"][1] < found["PGD, exit answering", "2/255"][1]
    assert found["Early PGD", "16/255"][2] > number(clean[4])
    assert found["slowdown", "16/255"][3] > found["slowdown", "2/255"][3]

    assert len(re.findall(r"^\* .*16/255", page.partition("## Attacks")[0], re.MULTILINE)) == 3  # the three sentences
    assert f"{found['Early PGD', '16/255'][2]:.1f} [" in page.partition("## Attacks")[0]
    assert "share k/3 of a full run" in page
    assert html.count('src="data:image/png;base64,') == 2
    assert html.count("<tr>") == 2 + 9 + 3
    assert {path.name for path in (files / "here").iterdir()} == {"REPORT.md", "REPORT.html", "accuracy.png", "cost.png"}


class Returns(nn.Module):
    """A module that returns what a function makes of three exits' logits."""

    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.ladder, self.change = Ladder(), change

    def forward(self, x):
        return self.change(self.ladder(x))


EXAMPLES = torch.from_numpy(pictures(5, 2)[0]).float() / 255


@pytest.mark.parametrize(
    "change",
    [tuple, torch.stack, lambda logits: SimpleNamespace(logits=logits), lambda logits: SimpleNamespace(logits=torch.stack(logits))],
)
def test_logits_come_in_several_forms(change):
    module = Returns(change)
    net = FromLogits(module, EXAMPLES)
    assert net(EXAMPLES).equal(torch.stack(module.ladder(EXAMPLES)))
    assert (net.n_exits, net.n_classes, net.shape) == (3, CLASSES, (1, SIDE, SIDE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[-1], "one exit: a static network"),
        (lambda logits: logits[-1:], "one exit: a static network"),
        (lambda logits: [], "returns nothing"),
        (lambda logits: "logits", "returns str"),
        (lambda logits: [*logits[:2], logits[2][:, :3]], r"float32 \[2, 3\] and torch.float32 \[2, 4\]"),
        (lambda logits: torch.stack(logits, dim=1), r"float32 \[3, 4\] for 2 images"),
        (lambda logits: [x[:1] for x in logits], r"\[1, 4\] for 2 images"),
        (lambda logits: [x.argmax(dim=1) for x in logits], r"int64 \[2\]"),
        (lambda logits: [(x > 0).long() for x in logits], r"int64 \[2, 4\]"),
        (lambda logits: [*logits[:2], logits[2] / 0], "not finite"),
        (lambda logits: [*logits[:2], logits[2].detach()], "exit 3 has no gradient"),
        (lambda logits: [x.detach() for x in logits], "exit 1 has no gradient"),
        (lambda logits: [x.round() for x in logits], "exit 1 has no gradient"),
    ],
)
def test_what_is_no_multi_exit_network_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        FromLogits(Returns(change), EXAMPLES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("costs", [[1, 2], [1, 1, 2], [0, 1, 2], [-1, 1, 2], [1, 3, 2], [1, 2, float("nan")], [1, 2, float("inf")]])
def test_costs_that_are_none_are_refused(costs):
    with pytest.raises(ValueError, match="need 3 positive numbers, increasing"):
        FromLogits(Returns(), EXAMPLES, costs)


def test_a_module_that_really_leaves_early_is_refused():
    net = FromLogits(Returns(lambda logits: logits[: 3 if len(logits[0]) == 2 else 2]), EXAMPLES)
    with pytest.raises(ValueError, match="must run all"):
        net(EXAMPLES)


@pytest.mark.parametrize(
    ("changed", "network", "message"),
    [
        ({"images": pictures(20, 1)[0].astype(float)}, "make_net", r"outside \[0, 1\]"),
        ({"images": pictures(20, 1)[0] / np.nan}, "make_net", r"outside \[0, 1\], or not finite"),
        ({"images": pictures(20, 1)[0][:, 0]}, "make_net", r"need some, \[n, channels, height, width\]"),
        ({"labels": np.arange(20)}, "make_net", "labels are outside 0 to 3"),
        ({"labels": np.arange(19)}, "make_net", "need an integer for each image"),
        ({"labels": np.ones(20)}, "make_net", "need an integer for each image"),
        ({"label": np.ones(20)}, "make_net", "arrays images and labels"),
        ({}, "nothing", "is not module:function"),
        ({}, "number", "returns int, not a torch"),
    ],
)
def test_the_command_refuses_in_one_line(files, changed, network, message):
    (files / "mine.py").write_text("from tests.test_audit import Returns as make_net\ndef number():\n    return 1\n")
    images, labels = pictures(20, 1)
    arrays = {"images": images, "labels": labels} if "label" not in changed else {"images": images}
    np.savez(files / "wrong.npz", **arrays | changed)
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as error:
        audit.main([f"mine:{network}", "--data", "wrong.npz"])
    assert "\n" not in str(error.value)
    assert not (files / "audit").exists()


@pytest.mark.parametrize("arguments", ["mine:make_net --data none.npz", "nobody:make_net --data data.npz", "mine --data data.npz"])
def test_a_name_of_nothing_is_refused(files, arguments):
    (files / "mine.py").write_text("")
    with pytest.raises(SystemExit, match=r"^error: "):
        audit.main(arguments.split())


def test_the_adapter_is_attacked_as_the_network_inside(sample):
    inside, images, labels = small_network(3), sample[0][:8], sample[1][:8]
    around, attack = FromLogits(inside, images, inside.macs.tolist()), PGD(loss="final")
    expected, found = attack(inside, images, labels), attack(around, images, labels)
    assert not found.adversarial.equal(images)
    assert found.adversarial.equal(expected.adversarial)
    assert found.reached.equal(expected.reached)
    rule = ConfidenceExit(inside(images)[0].softmax(dim=-1).amax(dim=-1).median().item())
    expected, found = rule.run(inside, images), rule.run(around, images)
    assert found.label.equal(expected.label)
    assert len(found.cost.unique()) > 1
    assert found.exit.equal(expected.exit)
    assert torch.allclose(found.cost / around.macs[-1], expected.cost / inside.macs[-1], atol=1e-5)


def test_the_default_costs_are_shares_of_what_torch_counts():
    macs = SIDE * SIDE * 9 * (16 + 16 * 16 + 16 * 16) + 3 * 16 * 9 * CLASSES
    assert FromLogits(Ladder(), EXAMPLES).macs.tolist() == [macs // 3, 2 * macs // 3, macs]
