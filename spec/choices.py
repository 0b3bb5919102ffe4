"""Parameters that take one of a few values."""

__all__ = ["require_choice"]


def require_choice(name: str, value, allowed) -> None:
    """``value`` must be of the type of ``allowed`` and among them; a bool is no int.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """
    allowed = tuple(allowed)
    kind = type(allowed[0])
    if type(value) is not kind:
        raise TypeError(f"{name} must be {'an' if kind is int else 'a'} {kind.__name__}, not {value!r}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
