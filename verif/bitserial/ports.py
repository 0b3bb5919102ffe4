"""Arrays to and from the wide ports of the blocks: arrays of structs as one number per element."""

import numpy as np
from amaranth.lib import data

from hw.arith.formats import FP16
from hw.bitserial.pe import PartialSum, Step, Term
from hw.special_values import SPECIAL_VALUES, Special
from sim.layout import pack, unpack

__all__ = ["elements", "special_port", "step_port"]


def elements(struct, **fields: np.ndarray) -> np.ndarray:
    """Fields [n, length] of an array of structs as one number per element, uint64 [n, length]."""
    shape = next(iter(fields.values())).shape
    return pack(struct, {name: values.reshape(-1) for name, values in fields.items()}).reshape(shape)


def special_port(values: np.ndarray) -> np.ndarray:
    """Special values [n, 8] as the port ``specials`` takes them."""
    numbers = elements(Special, magnitude=np.abs(values), sign=(values < 0).astype(np.uint64))
    return pack(data.ArrayLayout(Special.as_shape().size, SPECIAL_VALUES), numbers)


def step_port(sign, man, x, activations, bsig, last) -> np.ndarray:
    """PE steps: term fields and FP16 bits [n, lanes], bsig and last [n]."""
    lanes = activations.shape[1]
    layout = data.StructLayout(
        {
            "terms": data.ArrayLayout(Term.as_shape().size, lanes),
            "activations": data.ArrayLayout(FP16.as_shape().size, lanes),
            "bsig": 3,
            "last": 1,
        }
    )
    assert layout.size == Step(lanes).size
    terms = elements(Term, sign=sign, man=man, exp=x)
    return pack(layout, {"terms": terms, "activations": activations, "bsig": bsig, "last": last})


def partial_sum(port: np.ndarray, accumulator_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A and X of a PE's output port, int64."""
    fields = unpack(PartialSum(accumulator_bits), port)
    return fields["mantissa"] + fields["carry"].astype(np.int64), fields["exponent"].astype(np.int64)
