"""Campaigns: which attacks are made on which sources, and which targets are shown the examples.

Attacks and mechanisms are built from plain settings, as a profile has them and records keep them; what a profile says about one
goes straight into its own fields.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dynlib.attacks import ATTACKS, AnyAttack
from dynlib.attacks.losses import on_one_exit
from dynlib.mechanisms import MECHANISMS, Mechanism
from dynlib.networks.identity import Network, early_exits

FINITE = ConfigDict(allow_inf_nan=False)
Names = Literal["dataset", "model", "exits", "trained", "regime", "seed"]
# Values that some of a network's fields may have; a field that is not named may have any.
Selection = dict[Names, str | int | list[str | int]]


@dataclass(frozen=True)
class Planned:
    """An attack as a campaign makes it.

    ``exits`` says which of its early exits the attacked network keeps (see ``identity.early_exits``): whoever knows the design
    attacks it, and targets are shown the examples with all their exits. ``only`` selects the sources that it is made on.
    ``settings`` is what records keep of attack and exits.
    """

    attack: AnyAttack
    exits: str = "all"
    only: Selection = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What records call it: whatever differs from the attack's defaults, for example ``"pgd(eps=8/255, steps=20)"``."""
        settings = {
            f.name: getattr(self.attack, f.name) for f in fields(self.attack) if getattr(self.attack, f.name) != _default(f)
        }
        settings |= {"exits": self.exits} if self.exits != "all" else {}
        return f"{self.attack.name}({', '.join(f'{key}={_text(key, value)}' for key, value in settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        return {**plain(self.attack, "attack"), "exits": self.exits}


@dataclass(frozen=True)
class Campaign:
    """Attacks, the networks that they are made on, and for each of those the targets; ``images`` is their number by split."""

    name: str
    sources: tuple[Network, ...]
    targets: Mapping[Network, tuple[Network, ...]]
    attacks: tuple[Planned, ...]
    images: Mapping[str, int]
    mechanism: Mechanism

    def attacks_of(self, source: Network) -> list[Planned]:
        """The attacks that are made on a source.

        A static network has one exit, so that a loss is the same at all places; a design that the network cannot have is left out.
        """
        found: dict[str, Planned] = {}
        for planned in self.attacks:
            if not selects(planned.only, source):
                continue
            if source.is_static and hasattr(planned.attack, "loss"):
                loss = on_one_exit(planned.attack.loss)
                planned = replace(planned, attack=replace(planned.attack, loss=loss))  # type: ignore[arg-type] # it has one
            if planned.exits == "all" or _allows(source, planned.exits):
                found.setdefault(planned.name, planned)
        return list(found.values())

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its records have in common."""
        attacks = {planned.name: planned.settings for source in self.sources for planned in self.attacks_of(source)}
        return {"mechanism": plain(self.mechanism, "mechanism"), "images": dict(self.images), "attacks": attacks}


def _allows(network: Network, exits: str) -> bool:
    try:
        return bool(early_exits(exits, len(network.exit_indices)))
    except ValueError:
        return False


def selects(selection: Selection, network: Network) -> bool:
    return all(getattr(network, key) in (value if isinstance(value, list) else [value]) for key, value in selection.items())


def build(kind: Literal["attack", "mechanism"], given: Any, place: str) -> Any:
    """An attack or a mechanism from its settings: its name under ``kind``, and values of its fields.

    Args:
        kind: what is built.
        given: for example ``{"attack": "pgd", "steps": 20}``.
        place: where this stands, for the message.
    Raises:
        ValueError: an unknown name or field, a field that is missing or of another type, or a value out of range.
    """
    known: Mapping[str, type[Any]] = ATTACKS if kind == "attack" else MECHANISMS
    name = given.get(kind) if isinstance(given, Mapping) else given
    if not isinstance(given, Mapping) or not isinstance(name, str) or name not in known:
        raise ValueError(f"{place}: unknown {kind} {name!r}: choose one of {', '.join(known)}")
    wanted, values = known[name], {key: value for key, value in given.items() if key != kind}
    hints, own = get_type_hints(wanted), {field.name: field for field in fields(wanted)}
    for key, value in values.items():
        here = f"{place}.{key}"
        if key not in own:
            raise ValueError(f"{here}: {name} has no such field: it has {', '.join(own)}")
        if hints[key] is Mechanism:
            values[key] = build("mechanism", value, here)
            continue
        value = tuple(value) if isinstance(value, list) else value  # YAML has no tuples
        try:
            values[key] = TypeAdapter(hints[key], config=FINITE).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"{here}: {value!r}: {error.errors()[0]['msg']}") from None
    if missing := [key for key, field in own.items() if key not in values and _default(field) is MISSING]:
        raise ValueError(f"{place}.{missing[0]}: is missing")
    try:
        return wanted(**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def plain(value: Any, kind: str) -> dict[str, Any]:
    """An attack or a mechanism as ``build`` takes it."""
    settings = {field.name: getattr(value, field.name) for field in fields(value)}
    return {kind: value.name} | {
        key: plain(setting, "mechanism") if is_dataclass(setting) else list(setting) if isinstance(setting, tuple) else setting
        for key, setting in settings.items()
    }


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A campaign's settings as records keep them, with all fields of today: one that is newer has its default.

    So a default must mean what was done before its field was there. Settings that are none any more stay as they are.
    """
    try:
        attacks = {
            name: plain(build("attack", {key: value for key, value in given.items() if key != "exits"}, name), "attack")
            | {"exits": given["exits"]}
            for name, given in settings["attacks"].items()
        }
    except (KeyError, ValueError):
        return dict(settings)
    return {**settings, "attacks": attacks}


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _text(key: str, value: Any) -> str:
    if key in ("eps", "step_size") and isinstance(value, float):
        return f"{255 * value:.4g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)
