"""The column's AXI block against the models of the column."""

import numpy as np
import pytest
import torch

from golden.bitserial.column import MARKED_BITS, dot_products
from golden.weights import quantize, row_packets
from hw.tops.column import PEColumnAxi
from sim.design import build_design
from sim.runner import run
from spec.config import preset
from spec.datatypes import Datatype

CONFIG = preset("tiny")
GOOD = [
    (Datatype.FP4, 96, 32),
    (Datatype.INT8, 64, 64),
    (Datatype.FP3, 70, 32),
    (Datatype.INT5, 33, 128),
    (Datatype.INT4, 128, 128),
]
SPECIALS = [
    {Datatype.FP3: (3, -3, 6, -6), Datatype.FP4: (10, -10, 16, -16)},
    {Datatype.FP3: (5, -5, 0, 8), Datatype.FP4: (9, -9, 5, -5)},
    {Datatype.FP3: (-12, 12, 3, -6), Datatype.FP4: (-16, 16, 10, -10)},
]


class Rows:
    """Rows for the simulator: packets ``w``, activations ``a``, results ``y``, marks ``m``, special values ``s``."""

    def __init__(self, generator: torch.Generator):
        self.vectors: dict[str, np.ndarray] = {}
        self.count = 0
        self.generator = generator

    def add(self, datatype, length, group_size, *, specials=None, spoil=None) -> int:
        """A row of random weights and activations; ``spoil`` changes its packets and tells which PEs it marks."""
        weight = torch.randn(CONFIG.pes, length, generator=self.generator)
        activations = torch.randn(1, length, generator=self.generator).half()
        quantized = quantize(weight, datatype, group_size=group_size, special_values=specials)
        packets = [np.asarray(words).astype("<u8") for words in row_packets(quantized, lanes=CONFIG.lanes)]
        beats = np.zeros(-(-length // CONFIG.lanes) * CONFIG.lanes, "<u2")
        beats[:length] = activations[0].numpy().view(np.uint16)
        results = dot_products(quantized, activations, lanes=CONFIG.lanes, rounding=CONFIG.rounding)[0]
        results = results.astype(np.uint32)
        marks = np.zeros(CONFIG.pes, np.uint8)
        if spoil:
            packets, beats, marks = spoil(packets, beats)
            results[marks > 0] = MARKED_BITS
        row, self.count = self.count, self.count + 1
        self.vectors |= {f"w{row}_{k}": packet for k, packet in enumerate(packets)}
        values = specials or SPECIALS[0]
        self.vectors |= {
            f"a{row}": beats,
            f"y{row}": results,
            f"m{row}": marks,
            f"s{row}": np.array(values[Datatype.FP3] + values[Datatype.FP4], np.int64),
        }
        return row


def flip_parity(packets, beats):
    packets[1] = packets[1].copy()
    packets[1][1] ^= np.uint64(1 << 20)
    return packets, beats, np.array([0, 1], np.uint8)


def cut_weights(packets, beats):
    return [packets[0][:-1], packets[1]], beats, np.array([1, 0], np.uint8)


def cut_activations(packets, beats):
    return packets, beats[: -CONFIG.lanes], np.array([1, 1], np.uint8)


def infinity(packets, beats):
    beats = beats.copy()
    beats[5] = 0x7C00
    return packets, beats, np.array([1, 1], np.uint8)


BAD = [
    # what is wrong, the flag it raises, weights in the row
    (flip_parity, 1 << 2, 100),
    (cut_weights, 1 << 3, 90),
    (cut_weights, 1 << 3, 100),  # the cut packet ends with a whole beat
    (cut_activations, 1 << 4, 100),
    (infinity, 1 << 5, 100),
]


@pytest.mark.sim
def test_column_behind_axi(seed):
    rows = Rows(torch.Generator().manual_seed(seed))
    options = {
        "pes": CONFIG.pes,
        "good": [rows.add(*shape) for shape in GOOD],
        "special": [
            rows.add(datatype, 96, 32, specials=specials)
            for specials in SPECIALS
            for datatype in (Datatype.FP3, Datatype.FP4)
        ],
        "bad": [[rows.add(Datatype.INT6, length, 32, spoil=spoil), flag] for spoil, flag, length in BAD],
    }
    built = build_design(PEColumnAxi(CONFIG), "pe_column_axi")
    run(built, "verif.tops.tb_column", vectors=rows.vectors, options=options, seed=seed)
