"""spec.checks: every check takes what is allowed, and says of anything else what it was and what is allowed."""

from enum import IntEnum

import pytest

from spec import checks


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            lambda v: checks.instance("x", v, int, type(None)),
            (3, None),
            {"3": "x must be an int or None, not '3'", True: "x must be an int or None, not True"},
        ),
        (
            lambda v: checks.choice("x", v, (2, 4)),
            (2, 4),
            {3: "x must be one of 2, 4, not 3", 2.0: "x must be an int, not 2.0"},
        ),
        (
            lambda v: checks.choice("x", v, (False, True)),
            (False, True),
            {1: "x must be a bool, not 1"},
        ),
        (
            lambda v: checks.choice("x", v, range(2, 9, 2)),
            (2, 8),
            {3: "x must be in 2..8 and a multiple of 2, not 3", True: "x must be an int, not True"},
        ),
        (lambda v: checks.whole("x", v, 1), (1, 1 << 40), {0: "x must be at least 1, not 0"}),
        (
            lambda v: checks.whole("x", v, 8, 16, 4),
            (8, 12, 16),
            {
                4: "x must be in 8..16 and a multiple of 4, not 4",
                20: "x must be in 8..16 and a multiple of 4, not 20",
                10: "x must be in 8..16 and a multiple of 4, not 10",
            },
        ),
        (
            lambda v: checks.power_of_two("x", v, 2, 8),
            (2, 4, 8),
            {1: "x must be in 2..8, not 1", 6: "x must be a power of two in 2..8, not 6"},
        ),
        (
            lambda v: checks.number("x", v, 0, 1),
            (0, 0.5, 1),
            {2: "x must be from 0 to 1, not 2", float("nan"): "x must be from 0 to 1, not nan"},
        ),
        (
            lambda v: checks.ordered("x", v, 1, 9, descending=True),
            ((9, 3, 1), (1,)),
            {
                (3, 3): "x must be a non-empty descending tuple, not (3, 3)",
                (): "x must be a non-empty descending tuple, not ()",
                (10,): "each of x must be in 1..9, not 10",
                3: "x must be a tuple, not 3",
            },
        ),
        (
            lambda v: checks.members("x", v, (Colour.RED,)),
            (set(), frozenset({Colour.RED})),
            {
                frozenset({Colour.BLUE}): "x must be some of RED, not BLUE",
                frozenset({1}): "x must be a set of Colour, not frozenset({1})",
                (Colour.RED,): f"x must be a set of Colour, not {(Colour.RED,)!r}",
            },
        ),
        (
            lambda v: checks.members("x", v, Colour, kind=tuple, least=1),
            ((Colour.BLUE, Colour.RED),),
            {(): "x must be some of RED, BLUE, not none"},
        ),
        (lambda v: checks.named("x", v, {"a": 1}), ("a",), {"b": "x must be one of a, not 'b'"}),
    ],
)
def test_checks(check, good, bad):
    for value in good:
        check(value)
    for value, message in bad.items():
        with pytest.raises((TypeError, ValueError)) as caught:
            check(value)
        assert str(caught.value) == message


def test_several_attributes_at_once():
    with pytest.raises(ValueError, match=r"real must be one of 1, 2, not 3"):
        checks.choices(3, imag=(0,), real=(1, 2))
    assert checks.named("x", "a", {"a": 1}) == 1
