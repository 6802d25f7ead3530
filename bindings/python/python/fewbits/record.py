"""Dataclasses that are read from the native module's JSON, and written as it."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"

# Metadata of a field that Python adds to what the native module tells.
NOT_IN_JSON: dict[str, str | None] = {"json": None}

R = TypeVar("R", bound="Record")


def named_in_json(key: str) -> dict[str, str | None]:
    """Metadata of a field with another name in the JSON."""
    return {"json": key}


class Record:
    """A JSON object as a dataclass: fields are named as the JSON's keys.

    A field with a default is left out of the JSON where it has that value. A float that JSON cannot hold
    is null there, and NaN here.
    """

    def _fill(self, value: Json) -> None:
        name = type(self).__name__
        if not isinstance(value, dict):
            raise TypeError(f"{name} is read from an object, not {value!r}")
        rest = dict(value)
        for field in fields_of(type(self)):
            key = key_of(field)
            if key in rest:
                read = _read(field.type, rest.pop(key), f"{name}.{field.name}")
            else:
                read = _default(field, name)
            # A frozen dataclass is filled as its own __init__ does it.
            object.__setattr__(self, field.name, read)
        if rest:
            raise TypeError(f"{name} has no {', '.join(rest)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything that was measured, as the command line's ``--json`` prints it.

        Returns
        -------
        dict
            Of dicts, lists, numbers, strings and None: a copy that is yours to change.
        """
        return {name: _written(value) for name, value in self._told()}

    def _told(self) -> Iterator[tuple[str, object]]:
        """What the JSON holds."""
        for field in fields_of(type(self)):
            key, value = key_of(field), getattr(self, field.name)
            if key is not None and not _is_default(field, value):
                yield key, value

    def __getitem__(self, key: str) -> object:
        """A field by its key in the JSON; type checkers know more of the attribute.

        Raises
        ------
        KeyError
            If there is none.
        """
        for field in fields_of(type(self)):
            if key_of(field) == key:
                value: object = getattr(self, field.name)
                return value
        raise KeyError(key)


def read_json(kind: type[R], text: str) -> R:
    """The record of a JSON text of the native module."""
    return _record(kind, json.loads(text))


def _record(kind: type[R], value: Json) -> R:
    record = object.__new__(kind)
    record._fill(value)
    return record


class Tagged(Record):
    """One of several kinds: in JSON ``{"kind": {...}}``, or ``"kind"`` alone for one without fields."""

    kind: str

    def _fill(self, value: Json) -> None:
        inside: Json = {}
        kind: Json = value
        if isinstance(value, dict):
            ((kind, inside),) = value.items()
        if not isinstance(inside, dict):
            raise TypeError(f"{type(self).__name__} {kind} is read from an object, not {inside!r}")
        super()._fill({"kind": kind, **inside})

    def _as_json(self) -> Json:
        inside = super().to_dict()
        kind: str = inside.pop("kind")
        return {kind: inside} if inside else kind


def fields_of(cls: type[Record]) -> tuple[Field[Any], ...]:
    """The fields of a record, which is a dataclass."""
    return fields(cls)  # type: ignore[arg-type]


def key_of(field: Field[Any]) -> str | None:
    """The key of a field in the JSON, if it is there."""
    key: str | None = field.metadata.get("json", field.name)
    return key


def _default(field: Field[Any], owner: str) -> object:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"{owner}.{field.name} is missing")


def _is_default(field: Field[Any], value: object) -> bool:
    has_one = field.default is not MISSING or field.default_factory is not MISSING
    return has_one and bool(value == _default(field, ""))


def _read(hint: Any, value: Json, where: str) -> object:
    """The value as the type `hint` says; a TypeError if it is none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        # Of NaN and None the latter is meant.
        if value is None and NoneType in args:
            return None
        for other in args:
            with suppress(TypeError):
                return _read(other, value, where)
    elif origin is Literal:
        if value in args:
            return value
    elif origin is list and isinstance(value, list):
        return [_read(args[0], item, where) for item in value]
    elif origin is tuple and isinstance(value, list) and len(value) == len(args):
        return tuple(_read(arg, item, where) for arg, item in zip(args, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _read(args[1], item, where) for key, item in value.items()}
    elif isinstance(hint, type) and issubclass(hint, Record):
        return _record(hint, value)
    elif hint is float and value is None:
        return math.nan
    elif hint is float and type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    elif type(value) is hint:
        return value
    raise TypeError(f"{where} is {hint}, not {value!r}")


def _written(value: object) -> Json:
    if isinstance(value, Tagged):
        return value._as_json()
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    assert value is None or isinstance(value, (bool, int, float, str))
    return value
