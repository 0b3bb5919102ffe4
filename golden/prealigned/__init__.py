"""Pre-aligned path models: aligner, exact group sums, dequantization and FP32 running sums (docs/prealigned.md)."""

from golden.prealigned.aligner import AlignedActivations, align
from golden.prealigned.bound import deviation_bound, group_deviation
from golden.prealigned.dot import dot_products, group_sums, group_values, running_sums

__all__ = [
    "AlignedActivations",
    "align",
    "deviation_bound",
    "dot_products",
    "group_deviation",
    "group_sums",
    "group_values",
    "running_sums",
]
