"""Profiles: what a run measures and on which networks, with every name, type and range checked before anything runs.

A profile is a YAML file in ``workflow/profiles``. It may extend another one and then says only what differs. Its campaigns say
which attacks are made on which sources, and which targets are shown the examples; the settings of an attack go straight
into the attack's own fields. A fraction, such as ``8/255``, is a number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from dynlib.attacks import ATTACKS
from dynlib.attacks.goals import get_goal
from dynlib.campaigns import Campaign, Names, Planned, Selection, build, plain, selects
from dynlib.files import CLONE, DENIED, PROFILES
from dynlib.mechanisms import Mechanism
from dynlib.networks.identity import Network, early_exits
from dynlib.networks.recipes import RECIPES

# What a network's fields are where a profile does not say.
USUAL: Selection = {"exits": ["none", "all"], "trained": ["joint", "heads"], "regime": "standard", "seed": 0}


class ProfileError(ValueError):
    """A profile that cannot be run; the message is one line and names the file and the place in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Campaign(_Strict):
    """``same``: the fields in which a target agrees with its source, beside the data set."""

    sources: list[Selection] = [{}]
    targets: list[Selection] = [{}]
    same: list[Names] = []
    attacks: Annotated[list[dict[str, Any]], Field(min_length=1)]
    images: Annotated[dict[Literal["test", "validation"], PositiveInt], Field(min_length=1)]


class Timing(_Strict):
    """How dynamic inference is timed: the number of test images, batch sizes, rounds."""

    images: PositiveInt
    batches: Annotated[list[PositiveInt], Field(min_length=1)]
    rounds: PositiveInt


def _known_recipe(name: str | None) -> str | None:
    if name is not None and name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return name


class _Profile(_Strict):
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")]
    recipe: Annotated[str | None, AfterValidator(_known_recipe)]
    seed: int
    mechanism: dict[str, Any]
    networks: Annotated[list[Selection], Field(min_length=1)]
    campaigns: dict[str, _Campaign]
    timing: Timing
    notebooks: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Profile:
    """A checked profile. ``seed`` and ``mechanism`` are those of all its attacks that do not say otherwise."""

    name: str
    device: str
    recipe: str | None
    seed: int
    mechanism: Mechanism
    networks: tuple[Network, ...]
    campaigns: Mapping[str, Campaign]
    timing: Timing
    notebooks: Mapping[str, Mapping[str, Any]]


@cache
def load(name: str, folder: Path = PROFILES) -> Profile:
    """A profile by name.

    Raises:
        ProfileError: naming the file, the place in it, and what is wrong there.
    """
    try:
        given = _Profile.model_validate(_numbers(_extended(name, folder)))
        mechanism = build("mechanism", given.mechanism, "mechanism")
        networks = tuple(sorted(_networks(given.networks), key=lambda network: network.rank))
        campaigns = {key: _campaign(key, spec, networks, mechanism, given.seed) for key, spec in given.campaigns.items()}
    except ValidationError as error:
        first = error.errors()[0]
        raise ProfileError(f"profile {name}: {_place(first['loc'])}: {first['msg']}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ProfileError(f"profile {name}: {' '.join(str(error).split())}") from None
    return Profile(name, given.device, given.recipe, given.seed, mechanism, networks, campaigns, given.timing, given.notebooks)


def _extended(name: str, folder: Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """A profile's text, with what it extends."""
    path = folder / f"{name}.yaml"
    if name in below:
        raise ProfileError(f"{name} extends itself")
    try:
        given = yaml.safe_load(path.read_text())
    except PermissionError:
        raise ProfileError(f"{path} {DENIED}") from None
    except OSError:
        raise ProfileError(f"there is no {path.name} in {folder.name}{CLONE}") from None
    if not isinstance(given, dict):
        raise ProfileError(f"{path.name} holds no settings")
    base = given.pop("extends", None)
    return _merged(_extended(base, folder, (*below, name)), given) if base else given


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | changes | both


def _numbers(value: Any) -> Any:
    """With fractions as numbers."""
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)/(\d+)", value)):
        return float(match[1]) / float(match[2])
    return value


def _networks(selections: list[Selection]) -> set[Network]:
    """The networks that a profile has: all combinations of the named values that are a network."""
    found = set()
    for number, selection in enumerate(selections):
        try:
            values: dict[str, list[Any]] = {
                key: value if isinstance(value, list) else [value] for key, value in {**USUAL, **selection}.items()
            }
            for chosen in product(*values.values()):
                parts = dict(zip(values, chosen, strict=True))
                if parts["exits"] != "none" or parts["trained"] == "joint":
                    found.add(Network(**parts))
        except (ValueError, TypeError) as error:
            raise ValueError(f"networks[{number}]: {error}") from None
    return found


def _campaign(name: str, given: _Campaign, networks: tuple[Network, ...], mechanism: Mechanism, seed: int) -> Campaign:
    place, chosen = f"campaigns.{name}", {}
    for side, selections in (("sources", given.sources), ("targets", given.targets)):
        for number, selection in enumerate(selections):
            if not any(selects(selection, network) for network in networks):
                raise ValueError(f"{place}.{side}[{number}]: the profile has no such network")
        chosen[side] = tuple(n for n in networks if any(selects(selection, n) for selection in selections))
    same = ("dataset", *given.same)
    targets = {
        source: tuple(n for n in chosen["targets"] if all(getattr(n, key) == getattr(source, key) for key in same))
        for source in chosen["sources"]
    }
    attacks = [
        planned
        for number, spec in enumerate(given.attacks)
        for planned in _planned(spec, f"{place}.attacks[{number}]", mechanism, seed)
    ]
    names = [f"{planned.name} {planned.only}" for planned in attacks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{place}.attacks: {twice[0]} is there twice")
    campaign = Campaign(name, chosen["sources"], targets, tuple(attacks), given.images, mechanism)  # type: ignore[arg-type] # keys of a Mapping are invariant
    for source, planned in ((s, p) for s in campaign.sources if s.is_static for p in campaign.attacks_of(s)):
        if get_goal(planned.attack.goal).needs_early_exits:
            raise ValueError(f"{place}: {source} has no early exits, which {planned.name} needs")
    return campaign


def _planned(spec: dict[str, Any], place: str, mechanism: Mechanism, seed: int) -> list[Planned]:
    """The attacks of an entry: ``each`` names lists of values, of which all combinations are made."""
    common, each = {key: value for key, value in spec.items() if key != "each"}, spec.get("each", {})
    if not isinstance(each, dict) or not all(isinstance(values, list) for values in each.values()):
        raise ValueError(f"{place}.each: need lists of values by field")
    found = []
    for values in product(*each.values()):
        settings = common | dict(zip(each, values, strict=True))
        exits, only = settings.pop("exits", "all"), settings.pop("sources", {})
        try:
            TypeAdapter(Selection).validate_python(only, strict=True)
        except ValidationError as error:
            raise ValueError(f"{place}.sources: {error.errors()[0]['msg']}") from None
        early_exits(exits, 100)  # whether a network has so many is its own affair
        kind = ATTACKS.get(str(settings.get("attack")))
        own = {field.name for field in fields(kind)} if kind else set()
        usual = {"mechanism": plain(mechanism, "mechanism"), "seed": seed}
        usual = {key: value for key, value in usual.items() if key in own}
        found.append(Planned(build("attack", usual | settings, place), exits, only))
    return found


def _place(location: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
