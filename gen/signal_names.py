"""Names of signals: the same under every version of Python, so that the Verilog has the same bytes.

Amaranth names a signal after the variable that the next instruction stores it in, and knows the instructions of Python
up to 3.12. From 3.13 on the store in a local variable may be fused with the instruction behind it.
"""

import dis
import sys
from functools import cache
from types import CodeType

from amaranth import tracer

__all__ = ["get_var_name"]

_FUSED = ("STORE_FAST_STORE_FAST", "STORE_FAST_LOAD_FAST")
_LOADS = (
    "LOAD_GLOBAL",
    "LOAD_NAME",
    "LOAD_ATTR",
    "LOAD_FAST",
    "LOAD_FAST_LOAD_FAST",
    "LOAD_DEREF",
    "COPY",
    "EXTENDED_ARG",
)
"""What Amaranth looks past."""
_get_var_name = tracer.get_var_name


@cache
def _fused(code: CodeType) -> dict[int, str]:
    """Offset of a call -> local variable of the first store behind it, if that store is a fused instruction."""
    found, store = {}, None
    for instruction in reversed(list(dis.get_instructions(code))):
        if instruction.opname.startswith("CALL") and store is not None and store.opname in _FUSED:
            found[instruction.offset] = store.argval[0]
        if instruction.opname not in _LOADS:
            store = instruction
    return found


def get_var_name(depth: int = 2, default: object = tracer._raise_exception) -> str:
    """Stands in for ``amaranth.tracer.get_var_name``."""
    frame = sys._getframe(depth)
    found = _fused(frame.f_code).get(frame.f_lasti)
    return _get_var_name(depth + 1, default) if found is None else found
