"""The settings of attacks and mechanisms as plain values, of whatever library they were."""

import math
import operator
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def settle(owner: Any) -> None:
    """Make each field of a frozen dataclass a plain value of its type: an ``int`` of a ``numpy.int64``, say.

    Raises:
        ValueError: a value of another type, or a number that is not finite.
    """
    hints = _hints(type(owner))  # type: ignore[arg-type] # types can be hashed
    for name in (field.name for field in fields(owner)):
        value = getattr(owner, name)
        try:
            object.__setattr__(owner, name, _plain(hints[name], value))
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise ValueError(f"{name} {value!r}: need {_words(hints[name])}") from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(kind: Any, value: Any) -> Any:
    if isinstance(kind, UnionType):  # a type or None
        return None if value is None else _plain(get_args(kind)[0], value)
    if get_origin(kind) is tuple and not isinstance(value, str):
        return tuple(_plain(get_args(kind)[0], one) for one in value)
    if kind is int:
        return operator.index(value)
    if kind is float and not isinstance(value, str) and math.isfinite(value):
        return float(value)
    if kind is bool and value in (False, True):
        return bool(value)
    wanted = get_origin(kind) or kind
    if kind in (float, bool) or (isinstance(wanted, type) and not isinstance(value, wanted)):
        raise TypeError
    return value


WORDS = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a name"}


def _words(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return f"{_words(get_args(kind)[0])}, or None"
    if get_origin(kind) is tuple:
        return f"a list, each {_words(get_args(kind)[0])}"
    return WORDS.get(kind, f"a {(get_origin(kind) or kind).__name__}")
