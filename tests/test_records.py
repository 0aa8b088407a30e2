import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynlib import records
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS
from dynlib.mechanisms.base import STEPS
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

SOURCE = Network("cifar10", "resnet56")
STATIC = SOURCE.sibling(exits="none")
WEIGHTS = {network.id: read_card(network.path(CHECKPOINTS))["weights_sha256"] for network in (SOURCE, STATIC)}
ABOUT = {"profile": "tiny", "campaign": "walk", "settings": {"n": 3}, "weights": WEIGHTS, "data": DATASETS["cifar10"].digests}


def read(*given):
    """All records, as one table."""
    return pa.concat_tables([table for _, table in records.read(*given)]).unify_dictionaries().to_pandas()


def examples(source=SOURCE, n=3):
    images = np.arange(n)
    return {
        **records.parts("source", source),
        "attack": "pgd",
        "split": "test",
        "image": images,
        "truth": images % 10,
        "reached": images % 2 == 0,
        "stuck": False,
        "steps": 20,
        "macs": 10**12 + images,
        "l2": images / 7,
        "linf": 1 / 255,
    }


def answers(n=3):
    exits, images = np.meshgrid(np.arange(12), np.arange(n), indexing="ij")
    about = {**records.parts("source", SOURCE), **records.parts("target", STATIC)}
    sure = {"confidence": 1.0, "margin": 0.2, "entropy": 0.0}
    return {**about, "attack": "pgd", "split": "test", "image": images.ravel(), "exit": exits.ravel(), "label": 99, **sure}


@pytest.mark.parametrize(("kind", "rows"), [("examples", examples()), ("answers", answers())])
def test_what_is_written_is_read(tmp_path, kind, rows):
    records.write(tmp_path, kind, SOURCE, [rows], ABOUT)
    table = read(tmp_path, kind, {"profile": "tiny"})
    assert list(table) == records.SCHEMAS[kind].names
    for name, values in rows.items():
        expected = np.broadcast_to(values, len(table))
        if name in records.FIXED_POINT:
            expected = (expected * STEPS).round()
        elif expected.dtype.kind == "f":
            expected = expected.astype(np.float32)
        assert (table[name].to_numpy() == expected).all(), name


def test_the_records_of_several_sources_are_one_table(tmp_path):
    for source in (SOURCE, STATIC):
        records.write(tmp_path, "examples", source, [examples(source)], ABOUT)
    table = read(tmp_path, "examples", {})
    assert table.groupby("source_exits", observed=True).size().to_dict() == {"all": 3, "none": 3}
    assert isinstance(table.source_model.dtype, pd.CategoricalDtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "quick"}, "another profile than asked for"),
        ({"settings": {"n": 4}}, "another settings than"),
        ({"code": "abd"}, "another code than"),
        ({"weights": {SOURCE.id: "0" * 64}}, "other weights of cifar10-resnet56-dynn"),
        ({"weights": {"cifar10-resnet56-dynn-seed9": "0" * 64}}, "seed9, but .* is missing"),
        ({"data": DATASETS["cifar100"].digests}, "other data than cifar10"),
    ],
)
def test_a_mixture_is_refused_by_name(tmp_path, change, message):
    records.write(tmp_path, "examples", STATIC, [examples(STATIC)], ABOUT)
    wrong = records.write(tmp_path, "examples", SOURCE, [examples()], {**ABOUT, **change})
    with pytest.raises(RecordsError, match=message) as caught:
        read(tmp_path, "examples", {"profile": "tiny"})
    assert str(wrong) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "column 'steps' is missing"),
        ({"speed": 1}, "column 'speed' is unknown"),
        ({"l2": np.array([0, np.nan, 1])}, "l2 is not finite"),
        ({"linf": np.inf}, "linf is not finite"),
    ],
)
def test_wrong_rows_are_not_written(tmp_path, change, message):
    rows = {name: value for name, value in {**examples(), **change}.items() if value is not None}
    with pytest.raises(RecordsError, match=message):
        records.write(tmp_path, "examples", SOURCE, [rows], ABOUT)
    assert not list(tmp_path.iterdir())


def test_blocks_are_one_table(tmp_path):
    records.write(tmp_path, "examples", SOURCE, [examples(n=3), {**examples(n=2), "attack": "fgsm"}], ABOUT)
    assert list(read(tmp_path, "examples", {}).attack) == ["pgd"] * 3 + ["fgsm"] * 2


def test_nothing_there(tmp_path):
    with pytest.raises(RecordsError, match="holds no examples"):
        read(tmp_path, "examples", {})


def test_shares_outside_their_range_are_not_written(tmp_path):
    with pytest.raises(RecordsError, match=r"margin is outside \[0, 1\]"):
        records.write(tmp_path, "answers", SOURCE, [{**answers(), "margin": 1.5}], ABOUT)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_records_are_named(tmp_path, share):
    file = records.write(tmp_path, "examples", SOURCE, [examples()], ABOUT)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RecordsError, match=r"dynn\.examples\.parquet is damaged"):
        read(tmp_path, "examples", {})


def test_another_schema_is_refused(tmp_path):
    file = records.write(tmp_path, "examples", SOURCE, [examples()], ABOUT)
    table = pq.read_table(file).drop_columns(["stuck"]).replace_schema_metadata({"about": json.dumps(ABOUT)})
    pq.write_table(table, file)
    with pytest.raises(RecordsError, match="another schema"):
        read(tmp_path, "examples", {})


def test_an_exit_and_image_takes_few_bytes(tmp_path):
    rng = np.random.default_rng(0)
    rows = answers(n=2000)
    size = len(rows["image"])
    rows |= {"label": rng.integers(0, 100, size), **{name: rng.random(size) for name in ("confidence", "margin", "entropy")}}
    file = records.write(tmp_path, "answers", SOURCE, [rows], ABOUT)
    assert file.stat().st_size / size < 8
