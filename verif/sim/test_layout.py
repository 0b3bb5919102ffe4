"""sim.beats and sim.layout against Amaranth's own constants and Python's own ints."""

import numpy as np
import pytest
from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, enum

from sim import beats
from sim.layout import pack, unpack


class Kind(enum.Enum, shape=unsigned(2)):
    A = 0
    B = 2


LAYOUT = data.StructLayout(
    {
        "kind": Kind,
        "exponent": signed(6),
        "lanes": data.ArrayLayout(signed(5), 3),
        "inner": data.StructLayout({"flag": 1, "word": 64}),
        "wide": 71,
    }
)


@pytest.mark.parametrize("width", [1, 8, 31, 32, 33, 63, 64, 65, 100, 128])
def test_every_form_holds_the_same_payloads(width, rng):
    values = [0, 1, (1 << width) - 1, *(int.from_bytes(rng.bytes(17), "little") % (1 << width) for _ in range(20))]
    array = beats.from_ints(values, width)
    assert array.shape == ((23,) if width <= 64 else (23, -(-width // 8)))
    assert beats.to_ints(array) == values
    literals = beats.to_literals(array, width)
    assert [int(x, 2) if isinstance(x, str) else x for x in literals] == values
    np.testing.assert_array_equal(beats.from_literals(literals, width), array)
    np.testing.assert_array_equal(beats.from_literals([], width), array[:0])


def test_simulator_returns_32_bits_signed():
    assert beats.from_literals([-1, -(1 << 31), 5], 32).tolist() == [0xFFFFFFFF, 0x80000000, 5]


@pytest.mark.parametrize(
    ("values", "width", "error"),
    [
        ([4], 2, r"i: values must be in 0..2\*\*2 - 1, not 4"),
        ([-1], 70, "not -1"),
        (np.array([4]), 2, r"i must be below 2\*\*2, not 4"),
        (np.array([-4]), 2, "i must be a 1-D array of non-negative integers"),
        (np.array([0.5]), 2, "not float64"),
        (np.zeros((2, 8), np.uint8), 65, r"i must be uint8 \[n, 9\] for 65-bit payloads"),
        (np.full((2, 9), 255, np.uint8), 65, "i has bits set above bit 64"),
    ],
)
def test_payloads_that_do_not_fit(values, width, error):
    with pytest.raises((ValueError, TypeError), match=error):
        beats.checked(values, width, "i")


def test_pack_agrees_with_amaranth(rng):
    count = 40
    fields = {
        "kind": rng.choice([0, 2], count),
        "exponent": rng.integers(-32, 32, count),
        "lanes": rng.integers(-16, 16, (count, 3)),
        "inner": {"flag": rng.integers(0, 2, count), "word": rng.integers(0, 1 << 64, count, dtype=np.uint64)},
        "wide": np.frombuffer(rng.bytes(9 * count), np.uint8).reshape(count, 9) & np.array([255] * 8 + [127], np.uint8),
    }
    packed = pack(LAYOUT, fields)
    for index, value in enumerate(beats.to_ints(packed)):
        constant = LAYOUT.const(
            {
                "kind": Kind(int(fields["kind"][index])),
                "exponent": int(fields["exponent"][index]),
                "lanes": fields["lanes"][index].tolist(),
                "inner": {name: int(array[index]) for name, array in fields["inner"].items()},
                "wide": int.from_bytes(fields["wide"][index].tobytes(), "little"),
            }
        )
        assert value == constant.as_bits()
    back = unpack(LAYOUT, packed)
    np.testing.assert_equal(back, fields)
    assert back["exponent"].dtype == np.int64


def test_scalar_holds_for_every_payload():
    layout = data.StructLayout({"a": 3, "b": signed(4)})
    assert pack(layout, {"a": np.array([1, 2]), "b": -1}).tolist() == [0b1111_001, 0b1111_010]
    assert pack(layout, {"a": 5, "b": 0}).tolist() == [5]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"a": [8], "b": [0]}, r"payload.a must be in 0..7, not 8"),
        ({"a": [0], "b": [-9]}, r"payload.b must be in -8..7, not -9"),
        ({"a": [0]}, r"payload must have exactly the fields \['a', 'b'\], not \['a'\]"),
        ({"a": [0, 1], "b": [0, 1, 2]}, r"fields have different lengths: \[2, 3\]"),
        ({"a": [0.5], "b": [0]}, "payload.a must be integers, not float64"),
        ([1], "payload must be a mapping of its fields, not list"),
    ],
)
def test_bad_fields_are_named(fields, error):
    with pytest.raises(ValueError, match=error):
        pack(data.StructLayout({"a": 3, "b": signed(4)}), fields)


def test_array_field_needs_its_axis():
    layout = data.StructLayout({"lanes": data.ArrayLayout(4, 2)})
    with pytest.raises(ValueError, match=r"payload.lanes must have an axis for the elements"):
        pack(layout, {"lanes": [1, 2]})
    assert Shape.cast(layout).width == 8
    assert pack(layout, {"lanes": [[1, 2]]}).tolist() == [0x21]
