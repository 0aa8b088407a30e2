"""What the trial of a cluster compares, and what a large run would cost."""

import json
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from dynlib import profiles, records
from dynlib.files import PUBLISHED, home
from workflow import cost
from workflow.cluster.trial import differing
from workflow.craft import steps

FOLDER = home(PUBLISHED) / "results" / "cost"


def rewritten(file, table=None, **about):
    """Write a record again, with another table or other metadata."""
    table = pq.read_table(file) if table is None else table
    pq.write_table(table.replace_schema_metadata({"about": json.dumps(records.about(file) | about)}), file)


def test_records_that_differ_are_named(tmp_path):
    for name in ("one", "other"):
        shutil.copytree(FOLDER, tmp_path / name / "cost")
    one, other = tmp_path / "one", tmp_path / "other"
    files = sorted((other / "cost").glob("*.examples.parquet"))[:4]
    rewritten(files[0], device_seconds=-1.0)
    assert differing(one, other) == []
    rewritten(files[1], code="another")
    table = pq.read_table(files[2])
    rewritten(files[2], table.set_column(table.schema.get_field_index("steps"), "steps", table["macs"].cast("int32", safe=False)))
    files[3].unlink()
    assert differing(one, other) == [f"cost/{file.name}" for file in files[1:]]


def test_the_table_of_costs_is_that_of_the_records():
    assert cost.table(profiles.load(cost.LARGE)) in cost.PAGE.read_text()
    files = (home(PUBLISHED) / "results").glob("*/*.examples.parquet")
    measured = sum(records.about(file)["device_seconds"] for file in files) / 3600
    assert cost.jobs(profiles.load(PUBLISHED)).hours.sum() == pytest.approx(measured)  # nothing to extrapolate


def test_costs_grow_with_images_and_steps():
    step = next(step for step in steps(profiles.load(PUBLISHED)) if step.campaign.name == "published_attack")
    (first, second), images = step.campaign.attacks, step.campaign.images
    twice = replace(step.campaign, images={split: 2 * n for split, n in images.items()})
    assert cost.crafting(step._replace(campaign=twice)) == pytest.approx(2 * cost.crafting(step))
    longer = replace(first, attack=replace(first.attack, iterations=3 * first.attack.iterations))
    assert cost.crafting(step._replace(campaign=replace(twice, attacks=(longer, second)))) == pytest.approx(4 * cost.crafting(step))


def test_costs_of_training_grow_with_epochs_and_are_of_cpus(monkeypatch):
    network = profiles.load(PUBLISHED).networks[0]
    card = {"hardware": "2 CPU threads (AVX512)", "minutes": 3.0, "settings": {"epochs": 10}}
    monkeypatch.setattr(cost, "read_card", lambda path: card)
    epochs = cost.recipes.find("full", network).epochs
    assert cost.training(network, "full") == pytest.approx(60 * 3 * 2 * epochs / 10)
    card["hardware"] = "NVIDIA card"
    with pytest.raises(ValueError, match="was trained on NVIDIA card: what a CPU takes is not known"):
        cost.training(network, "full")
