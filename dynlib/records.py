"""The records of crafted examples: one schema, one writer, one reader that checks all that a number stands on.

A campaign crafts examples on a source network and shows them to targets. Two Parquet files for each source keep what was seen:
``examples``, a row for each attack and image, and ``answers``, a row for each attack, target, exit and image. What they stand on
(settings, weights, data, code, packages, device, seconds) is in the metadata of both files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynlib.campaigns import completed
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS, DENIED, atomic, digest, listed
from dynlib.mechanisms.base import STEPS
from dynlib.networks.checkpoints import CheckpointError, read_card
from dynlib.networks.identity import Network

# How sure an exit is: shares in [0, 1], stored in steps of 1/65535, which takes 7 bytes an exit and image in all.
FIXED_POINT = ("confidence", "margin", "entropy")
_NAME = pa.dictionary(pa.int16(), pa.string())


def _network(side: str) -> list[pa.Field]:
    """The columns of a network's parts."""
    names = [pa.field(f"{side}_{part}", _NAME) for part in ("dataset", "model", "exits", "trained", "regime")]
    return [*names, pa.field(f"{side}_seed", pa.int16())]


_IMAGE = [pa.field("attack", _NAME), pa.field("split", _NAME), pa.field("image", pa.int32())]
SCHEMAS = {
    # ``attack`` names it within its campaign, ``image`` counts from 0 within the split. ``reached``: the goal was; ``stuck``: the
    # gradient was zero at every step. ``l2`` and ``linf`` are distances from the image, in units of its range.
    "examples": pa.schema(
        [
            *_network("source"),
            *_IMAGE,
            pa.field("truth", pa.int16()),
            pa.field("reached", pa.bool_()),
            pa.field("stuck", pa.bool_()),
            pa.field("steps", pa.int32()),
            pa.field("macs", pa.int64()),
            pa.field("l2", pa.float32()),
            pa.field("linf", pa.float32()),
        ]
    ),
    # Of one exit, which counts from 0: its label, and three measures of how sure it is, see ``dynlib.mechanisms``.
    "answers": pa.schema(
        [
            *_network("source"),
            *_network("target"),
            *_IMAGE,
            pa.field("exit", pa.int8()),
            pa.field("label", pa.int16()),
            *(pa.field(name, pa.uint16()) for name in FIXED_POINT),
        ]
    ),
}
# What an answer cost, where a target of the file is a network that tells; null for its other targets.
COST = "cost"
COSTED = {"answers": SCHEMAS["answers"].append(pa.field(COST, pa.int64()))}
# What two files of one reading must share, and what has to be that of this checkout.
SHARED = ("profile", "campaign", "settings", "code", "packages")


class RecordsError(RuntimeError):
    """Records that are missing, damaged or of something else; the message is one line and names the file."""


def parts(side: str, network: Network) -> dict[str, Any]:
    """The columns that name a network, as the source or the target of a row."""
    fields = {name: getattr(network, name) for name in ("dataset", "model", "exits", "trained", "regime", "seed")}
    return {f"{side}_{name}": value for name, value in fields.items()}


def path(folder: Path, kind: str, source: Network) -> Path:
    """Where the records of a source lie; ``kind`` is a key of ``SCHEMAS``."""
    return folder / f"{source}.{kind}.parquet"


def write(folder: Path, kind: str, source: Network, blocks: Iterable[Mapping[str, Any]], about: dict[str, Any]) -> Path:
    """Write the records of one source: blocks of rows, each with all columns; a value that is not an array holds for all of them.

    Answers may have one more, ``COST``; without any the file has no such column.

    Raises:
        RecordsError: a column too many or too few, a number that is not finite, or a share outside [0, 1].
    """
    blocks, target = list(blocks), path(folder, kind, source)
    schema = COSTED[kind] if kind in COSTED and any(COST in rows for rows in blocks) else SCHEMAS[kind]
    table = pa.concat_tables([_table(rows, schema, target) for rows in blocks]).unify_dictionaries()
    with atomic(target) as temporary:
        repeated = [name for name in schema.names if name not in ("image", *FIXED_POINT)]
        encodings = {name: "BYTE_STREAM_SPLIT" for name in FIXED_POINT if name in schema.names} | {"image": "DELTA_BINARY_PACKED"}
        said = json.dumps(about)
        described = table.replace_schema_metadata({"about": said, "sha256": _digest(said.encode(), table)})
        pq.write_table(described, temporary, compression="zstd", use_dictionary=repeated, column_encoding=encodings)
    return target


def _table(rows: Mapping[str, Any], schema: pa.Schema, target: Path) -> pa.Table:
    """One block."""
    known = set(schema.names)
    if wrong := (set(rows) - known) | (known - {*rows, COST}):
        raise RecordsError(f"{target}: column {min(wrong)!r} is {'unknown' if min(wrong) in rows else 'missing'}")
    n, columns = max(np.size(value) for value in rows.values()), []
    for field in schema:
        if field.name not in rows:
            columns.append(pa.nulls(n, field.type))
            continue
        value = np.broadcast_to(np.asarray(rows[field.name]), n)
        if field.type == _NAME:
            names, codes = np.unique(value, return_inverse=True)
            columns.append(pa.DictionaryArray.from_arrays(codes.astype(np.int16), names.tolist()))
            continue
        if not np.isfinite(value).all():
            raise RecordsError(f"{target}: {field.name} is not finite")
        if field.name in FIXED_POINT:
            if not ((value >= 0) & (value <= 1)).all():
                raise RecordsError(f"{target}: {field.name} is outside [0, 1]")
            value = (value.astype(np.float64) * STEPS).round()
        columns.append(pa.array(value.astype(field.type.to_pandas_dtype()), field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def read(folder: Path, kind: str, expected: Mapping[str, Any]) -> Iterator[tuple[Path, pa.Table]]:
    """The records of a campaign, source by source, in the order of tables and figures; names are dictionaries.

    Args:
        folder: of the campaign.
        kind: a key of ``SCHEMAS``.
        expected: what the files' metadata must say, for example ``{"profile": "quick"}``.
    Raises:
        RecordsError: nothing there, a damaged file, or one of another schema, profile, settings, weights or data; named.
    """
    with named_if_damaged(folder):
        found = listed(folder, f"*.{kind}.parquet")
    files = sorted(found, key=lambda file: Network.parse(file.name.split(".")[0]).rank)
    if not files:
        raise RecordsError(f"{folder} holds no {kind}")
    first = about(files[0])
    for file in files:
        table, stands_on = _read(file, kind)
        for key, value in [*((key, first.get(key)) for key in SHARED), *expected.items()]:
            if stands_on.get(key) != value:
                raise RecordsError(f"{file} is of another {key} than {'asked for' if key in expected else files[0].name}")
        _check_networks(file, stands_on)
        yield file, table


def about(file: Path) -> dict[str, Any]:
    """What a file of records stands on, its settings ``campaigns.completed``.

    Raises:
        RecordsError: a damaged file, or one that may not be read.
    """
    with named_if_damaged(file):
        found = json.loads(pq.read_schema(file).metadata[b"about"])
        return {**found, "settings": completed(found["settings"])}


def _read(file: Path, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    stands_on = about(file)
    with named_if_damaged(file):
        table = pq.read_table(file)
    if table.schema not in (SCHEMAS[kind], COSTED.get(kind)):
        raise RecordsError(f"{file} has another schema: it was written by another version, run again")
    with named_if_damaged(file):
        said = table.schema.metadata
        # Records of before there were digests have none.
        if said.get(b"sha256", expected := _digest(said[b"about"], table).encode()) != expected:
            raise ValueError("wrong digest")
    return table, stands_on


def _digest(about: bytes, table: pa.Table) -> str:
    """Of all that records say, however Parquet has encoded it."""
    parts: list[bytes | memoryview] = [about]
    for name, column in zip(table.column_names, table.unify_dictionaries().itercolumns(), strict=True):
        values = column.combine_chunks()
        if isinstance(values, pa.DictionaryArray):
            names, ranks = np.unique(values.dictionary.to_numpy(zero_copy_only=False), return_inverse=True)
            values, parts = ranks.astype(np.int16)[values.indices.to_numpy()], [*parts, "\0".join(names).encode()]
        parts += [name.encode(), np.ascontiguousarray(values).data.cast("B")]
    return digest(parts)


@contextmanager
def named_if_damaged(file: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise RecordsError(f"{file} {DENIED}") from None
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise RecordsError(f"{file} is damaged ({line}): delete it and run again") from None


def _check_networks(file: Path, stands_on: Mapping[str, Any]) -> None:
    for id, weights in stands_on["weights"].items():
        network = Network.parse(id)
        try:
            known = read_card(network.path(CHECKPOINTS))["weights_sha256"]
        except CheckpointError as error:
            raise RecordsError(f"{file} was measured on {id}, but {error}") from None
        if weights != known:
            raise RecordsError(f"{file} was measured with other weights of {id}: delete it and run again")
        if stands_on["data"] != DATASETS[network.dataset].digests:
            raise RecordsError(f"{file} was measured on other data than {network.dataset} here: delete it and run again")
