"""One allocation of bits from the loss: widths for every channel of a KV cache, as a plan file (docs/kv-planes.md)."""

from golden.alloc.calibrate import Moments, calibrate
from golden.alloc.plan import Plan, PlanError, load_plan, make_plan, save_plan
from golden.alloc.planes import DISTORTION, STEPS, codes, pack_rows, unpack_rows, values
from golden.alloc.texts import TEXTS, read_text, windows

__all__ = [
    "DISTORTION",
    "STEPS",
    "TEXTS",
    "Moments",
    "Plan",
    "PlanError",
    "calibrate",
    "codes",
    "load_plan",
    "make_plan",
    "pack_rows",
    "read_text",
    "save_plan",
    "unpack_rows",
    "values",
    "windows",
]
