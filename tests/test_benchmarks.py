"""The benchmarks run, at a scale that measures nothing, and write their page."""

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import attacks, early, growth, inference, strength
from benchmarks.rounds import against, interleaved, ratios


def test_the_page(tmp_path, monkeypatch):
    for module in (attacks, inference, strength):
        monkeypatch.setattr(module, "MODELS", ("mobilenet",))
    monkeypatch.setattr(attacks, "STEPS", 2)
    monkeypatch.setattr(inference, "BATCHES", (1, 4))
    monkeypatch.setattr(early, "BATCH", 2)
    monkeypatch.setattr(early, "ITERATIONS", 2)
    monkeypatch.setattr(
        growth, "grown", lambda what, sizes: [(what, size, *growth.measured(**tiny(what)), "") for size in sizes[:1]]
    )
    monkeypatch.setattr(strength, "RADII", (2,))
    threads, out = torch.get_num_threads(), tmp_path / "page.md"
    benchmarks.main(["--rounds", "1", "--batch", "2", "--images", "3", "--out", str(out)])
    torch.set_num_threads(threads)  # which ``measured`` changes
    text = out.read_text()
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Attacks: time",
        "Attacks: goals",
        "Dynamic inference",
        "The published Early Attack",
        "Growth",
        "Strength in bfloat16",
    ]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| MobileNet")]
    assert len(rows) == 9 + 4 + 2 + 3  # the runs, their goals, two batches, one loss of the static network and two of the dynamic
    for block in text.split("## ")[1:]:
        assert len({line.count(" | ") for line in block.splitlines() if line.startswith("|")}) == 1
    assert benchmarks.processor() in text


def tiny(what):
    return growth.USUAL | {"images": 2, "exits": 2} | {what: 10 if what == "classes" else 2}


def test_a_size_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(growth, "USUAL", {"images": 1, "exits": 2, "classes": 10})
    small, large = growth.grown("images", (1, 12))
    assert small[:4] == ("images", 1, "1.0", "1.00")
    assert large[:3] == ("images", 12, "12.0")
    assert float(large[4]) > 2  # more images at once take more memory


def test_ratios_are_of_one_round():
    order = []
    seconds = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == ["a", "b"] * 3
    assert [len(one) for one in seconds.values()] == [2, 2]
    assert ratios({"a": [1.0, 6.0], "b": [2.0, 2.0], "c": [2.0, 1.0]}, ["a"], ["b", "c"]) == [0.25, 2.0]
    assert against([0.5, 0.9, 0.7], 0.7) == ("0.70 (0.50 to 0.90)", "at most 0.7", "yes")
    assert against([0.5, 0.9, 0.7], 0.8, at_least=True)[2] == "no"


def test_nothing_to_measure_is_refused(capsys):
    with pytest.raises(SystemExit):
        benchmarks.main(["--rounds", "0"])
    assert "need at least 1 of each" in capsys.readouterr().err
