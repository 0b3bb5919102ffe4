"""The weight path in software: quantizer, row packets, files."""

from golden.weights.files import PackedReader, PackedWriter, WeightFileError, load_packed, save_packed
from golden.weights.packing import PackedPlan, PackedWeight, pack, row_packets
from golden.weights.parsing import PacketError, ParsedRow, parse_row
from golden.weights.quantized import QuantizedWeight
from golden.weights.quantizer import quantize
from golden.weights.unpacking import unpack, unpack_rows

__all__ = [
    "PackedPlan",
    "PackedReader",
    "PackedWeight",
    "PackedWriter",
    "PacketError",
    "ParsedRow",
    "QuantizedWeight",
    "WeightFileError",
    "load_packed",
    "pack",
    "parse_row",
    "quantize",
    "row_packets",
    "save_packed",
    "unpack",
    "unpack_rows",
]
