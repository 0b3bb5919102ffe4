"""Checks of parameters: one message per kind of mistake, with the parameter's name, its value and what is allowed.

Every check raises TypeError for a value of a wrong type and ValueError for a wrong value. A bool is no int.
"""

from collections.abc import Collection, Mapping

__all__ = ["choice", "choices", "instance", "members", "named", "number", "ordered", "power_of_two", "whole"]


def _listed(values: Collection) -> str:
    return ", ".join(str(getattr(value, "name", value)) for value in values)


def instance(name: str, value, *kinds: type) -> None:
    """``value`` is of one of the types."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds)):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be {'an' if expected[0] in 'aeioAEIO' else 'a'} {expected}, not {value!r}")


def choice(name: str, value, allowed: Collection) -> None:
    """``value`` is one of ``allowed``, and of their type."""
    if isinstance(allowed, range):
        whole(name, value, allowed[0], allowed[-1], allowed.step)
        return
    instance(name, value, *dict.fromkeys(map(type, allowed)))
    if value not in allowed:
        raise ValueError(f"{name} must be one of {_listed(allowed)}, not {value!r}")


def choices(source, **allowed: Collection) -> None:
    """:func:`choice` for several attributes of ``source``."""
    for name, values in allowed.items():
        choice(name, getattr(source, name), values)


def whole(name: str, value, least: int, most: int | None = None, step: int = 1) -> None:
    """``value`` is an int in ``least..most`` that ``step`` divides."""
    instance(name, value, int)
    if value < least or (most is not None and value > most) or value % step:
        bounds = f"at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{name} must be {bounds}{f' and a multiple of {step}' if step > 1 else ''}, not {value}")


def power_of_two(name: str, value, least: int, most: int) -> None:
    """``value`` is a power of two in ``least..most``."""
    whole(name, value, least, most)
    if value.bit_count() != 1:
        raise ValueError(f"{name} must be a power of two in {least}..{most}, not {value}")


def number(name: str, value, least: float, most: float) -> None:
    """``value`` is an int or a float from ``least`` to ``most``."""
    instance(name, value, float, int)
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value!r}")


def ordered(name: str, values, least: int, most: int, *, descending: bool = False) -> None:
    """``values`` is a tuple of one int or more in ``least..most``, each above (or below) the one before."""
    instance(name, values, tuple)
    for value in values:
        whole(f"each of {name}", value, least, most)
    if not values or list(values) != sorted(set(values), reverse=descending):
        order = "descending" if descending else "ascending"
        raise ValueError(f"{name} must be a non-empty {order} tuple, not {values!r}")


def members(name: str, values, allowed: Collection, *, kind: type = frozenset, least: int = 0) -> None:
    """``values`` is a set (or of another ``kind``) of at least ``least`` values of ``allowed``, of their type."""
    member = type(next(iter(allowed)))
    if not isinstance(values, (kind, set) if kind is frozenset else kind) or any(type(v) is not member for v in values):
        raise TypeError(f"{name} must be a {kind.__name__.removeprefix('frozen')} of {member.__name__}, not {values!r}")
    if len(values) < least or not set(values) <= set(allowed):
        raise ValueError(f"{name} must be some of {_listed(sorted(allowed))}, not {_listed(values) or 'none'}")


def named(what: str, name: str, table: Mapping):
    """``table[name]``; ``what`` says what the names are of."""
    if name not in table:
        raise ValueError(f"{what} must be one of {_listed(table)}, not {name!r}")
    return table[name]
