"""What a SystemRDL file promises, read from its properties alone: nothing here knows how the RTL is generated."""

from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import RegNode

__all__ = ["promises"]


def promises(path: Path) -> list[dict]:
    """The registers of a file, as JSON for the simulator."""
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    top = compiler.elaborate().top
    return [_register(node) for node in top.descendants(unroll=True) if isinstance(node, RegNode)]


def _register(node: RegNode) -> dict:
    index = f"_{node.current_idx[0]}" if node.is_array else ""
    return {
        "name": node.inst_name.lower() + index,
        "address": node.absolute_address,
        "width": node.get_property("regwidth"),
        "external": bool(node.external),
        "fields": [_field(field) for field in node.fields()],
    }


def _field(field) -> dict:
    lock = field.get_property("swwel")
    onwrite = field.get_property("onwrite")
    reset = field.get_property("reset")
    return {
        "name": field.inst_name.lower(),
        "low": field.low,
        "width": field.width,
        "readable": field.is_sw_readable,
        "writable": field.is_sw_writable,
        "driven": field.is_hw_writable and not field.get_property("stickybit"),
        "reset": reset if isinstance(reset, int) else 0,
        "sticky": bool(field.get_property("stickybit")),
        "clears": onwrite is not None and onwrite.name == "woclr",
        "pulse": bool(field.get_property("singlepulse")),
        "counter": bool(field.get_property("counter")),
        "step": field.get_property("incrwidth") or 1,
        "lock": lock.inst_name if lock else "",
    }
