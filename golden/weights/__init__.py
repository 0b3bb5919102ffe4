"""Weight path models: quantizer, packets, files and the bit-exact decoder, PE, dequantizer and column."""

from golden.bitserial.column import (
    MARKED_BITS,
    ColumnResult,
    column_model,
    dequantize_group,
    dot_products,
    group_sums,
    steps_per_row,
)
from golden.bitserial.decoder import Terms, terms
from golden.bitserial.reference import exact_group_sums, reference, relative_error_bound
from golden.weights.files import PackedReader, PackedWriter, WeightFileError, load_packed, save_packed
from golden.weights.packing import PackedPlan, PackedWeight, pack, row_packets
from golden.weights.parsing import PacketError, ParsedRow, parse_row
from golden.weights.quantized import QuantizedWeight
from golden.weights.quantizer import quantize
from golden.weights.unpacking import unpack, unpack_rows

__all__ = [
    "MARKED_BITS",
    "ColumnResult",
    "PackedPlan",
    "PackedReader",
    "PackedWeight",
    "PackedWriter",
    "PacketError",
    "ParsedRow",
    "QuantizedWeight",
    "Terms",
    "WeightFileError",
    "column_model",
    "dequantize_group",
    "dot_products",
    "exact_group_sums",
    "group_sums",
    "load_packed",
    "pack",
    "parse_row",
    "quantize",
    "reference",
    "relative_error_bound",
    "row_packets",
    "save_packed",
    "steps_per_row",
    "terms",
    "unpack",
    "unpack_rows",
]
