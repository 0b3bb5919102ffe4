"""Register maps, read from SystemRDL: the one definition behind the RTL, the documentation and the C header.

The ``.rdl`` files in this directory hold the maps. What a field does follows from its SystemRDL
properties; :class:`FieldKind` lists the combinations that are understood, and any other is refused by name.
"""

import functools
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from systemrdl import RDLCompileError, RDLCompiler
from systemrdl.messages import MessagePrinter
from systemrdl.node import AddrmapNode, FieldNode, RegNode, SignalNode
from systemrdl.rdltypes import AccessType, OnWriteType

from spec import checks

__all__ = ["ADDRESS_BITS", "MAPS", "FieldKind", "Register", "RegisterField", "RegisterMap", "compile_map", "load_map"]

ADDRESS_BITS = 12
"""Every map has a window of 4 KiB, the least that AXI interconnects hand out."""

MAPS = ("core", "address_generator", "score_core", "value_core")
"""The maps of this project, by name of their file."""

WORD = 32


class FieldKind(Enum):
    """What a field does. The text is the access that the documentation states."""

    CONSTANT = "ro"
    """``sw=r; hw=na``: the reset value, always."""
    STATUS = "ro, status"
    """``sw=r; hw=w``: what the hardware drives."""
    CONTROL = "rw"
    """``sw=rw; hw=r``: a register; with ``swwel`` it refuses writes while that signal is high."""
    STICKY = "rw, write 1 to clear"
    """``sw=rw; hw=w; onwrite=woclr; stickybit``: set by the hardware, bit by bit; setting wins over clearing."""
    PULSE = "wo, pulse"
    """``sw=w; hw=r; singlepulse``: high for one cycle when 1 is written; reads as 0."""
    COUNTER = "ro, counter"
    """``sw=r; hw=na; counter; incrsaturate; hwclr``: counts up to all ones; clearing and counting add up."""
    EXTERNAL = "rw, external"
    """Field of an ``external`` register, ``sw=rw; hw=rw``: kept by the hardware, which may refuse a write."""


@dataclass(frozen=True, kw_only=True)
class RegisterField:
    """Bits ``low`` to ``low + width - 1`` of a register. ``reset`` is None where the map leaves it to the
    hardware."""

    name: str
    low: int
    width: int
    kind: FieldKind
    reset: int | None
    description: str
    encode: str | None = None
    locked_by: str | None = None
    increment_bits: int = 1


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register at byte ``address``; ``width`` 32, or 64 with the low word first.

    Reading the low word of a ``buffered`` register keeps the high word for the read that follows. ``index`` is the
    place in an array of registers called ``name``.
    """

    name: str
    address: int
    width: int
    title: str
    description: str
    fields: tuple[RegisterField, ...]
    buffered: bool = False
    index: int | None = None

    @property
    def member(self) -> str:
        """Name of the register in the hardware's interface."""
        return self.name.lower() + ("" if self.index is None else f"_{self.index}")

    @property
    def external(self) -> bool:
        return self.fields[0].kind is FieldKind.EXTERNAL


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """A compiled register map; ``enums`` maps an enum's name to ``{member: (value, description)}``, and ``locks`` are
    the signals that make fields refuse writes."""

    name: str
    title: str
    description: str
    registers: tuple[Register, ...]
    enums: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    locks: tuple[str, ...] = ()

    def values(self, enum: str) -> dict[str, int]:
        """Members of an enum and their values."""
        return {name: value for name, (value, _) in self.enums[enum].items()}


class _Quiet(MessagePrinter):
    """Keeps the compiler's messages for the exception instead of writing them to standard error."""

    def __init__(self):
        self.lines: list[str] = []

    def emit_message(self, lines: list[str]) -> None:
        self.lines += [re.sub(r"\x1b\[\d*m", "", line) for line in lines]


def compile_map(path: Path) -> AddrmapNode:
    """Compile a SystemRDL file; returns its top address map.

    Raises
    ------
    ValueError
        The file is not valid SystemRDL; the message is the compiler's.
    OSError
        The file cannot be read.
    """
    Path(path).read_bytes()
    messages = _Quiet()
    compiler = RDLCompiler(message_printer=messages)
    try:
        compiler.compile_file(str(path))
        return compiler.elaborate().top
    except RDLCompileError as error:
        raise ValueError("\n".join([f"{path}: {error}", *messages.lines])) from error


@functools.cache
def load_map(source: str | Path) -> RegisterMap:
    """A register map by name (:data:`MAPS`) or path of a SystemRDL file.

    Raises
    ------
    ValueError
        Unknown name, invalid SystemRDL, or a construct that the generator does not support; the message names it.
    """
    if isinstance(source, str):
        checks.choice("map", source, MAPS)
        source = Path(__file__).parents[1] / "tops" / f"{source}.rdl"
    top = compile_map(source)
    nodes = list(top.descendants(unroll=True))
    registers = tuple(_register(node) for node in nodes if isinstance(node, RegNode))
    for node in nodes:
        if not isinstance(node, RegNode | FieldNode | SignalNode):
            raise ValueError(f"{source}: {node.get_path()} is neither a register, a field nor a signal")
    if top.size > 1 << ADDRESS_BITS:
        raise ValueError(f"{source}: the map takes {top.size} bytes, more than {1 << ADDRESS_BITS}")
    members = [register.member for register in registers]
    locks = sorted({bits.locked_by for register in registers for bits in register.fields if bits.locked_by})
    if clashes := sorted(name for name in {*members} if members.count(name) > 1 or name in ("bus", "refused", *locks)):
        raise ValueError(f"{source}: the name {clashes[0]!r} is taken")
    return RegisterMap(
        name=top.inst_name,
        title=top.get_property("name"),
        description=_text(top),
        registers=registers,
        enums=_enums(nodes),
        locks=tuple(locks),
    )


def _text(node) -> str:
    return " ".join((node.get_property("desc") or "").split())


def _register(node: RegNode) -> Register:
    width = node.get_property("regwidth")
    buffered = bool(node.get_property("buffer_reads", default=False))
    fields = tuple(_field(child) for child in node.fields())
    path = node.get_path()
    if width not in (WORD, 2 * WORD) or node.get_property("accesswidth") != WORD:
        raise ValueError(f"{path}: regwidth must be 32 or 64 with accesswidth 32, not {width}")
    kinds = {bits.kind for bits in fields}
    if width > WORD and not (buffered and kinds <= {FieldKind.COUNTER, FieldKind.STATUS}):
        raise ValueError(f"{path}: a 64-bit register must be read-only and have buffer_reads")
    if node.external != (kinds == {FieldKind.EXTERNAL}):
        raise ValueError(f"{path}: all fields of an external register, and only those, have sw=rw; hw=rw")
    return Register(
        name=node.inst_name,
        address=node.absolute_address,
        width=width,
        title=node.get_property("name"),
        description=_text(node),
        fields=fields,
        buffered=buffered,
        index=node.current_idx[0] if node.is_array else None,
    )


def _field(node: FieldNode) -> RegisterField:
    kind = _kind(node)
    lock = node.get_property("swwel") or None
    reset = node.get_property("reset")
    encode = node.get_property("encode")
    if lock is not None and not (isinstance(lock, SignalNode) and kind is FieldKind.CONTROL):
        raise ValueError(f"{node.get_path()}: swwel must name a signal, on a field with sw=rw; hw=r")
    if kind not in (FieldKind.STATUS, FieldKind.EXTERNAL) and not isinstance(reset, int):
        raise ValueError(f"{node.get_path()}: needs a constant reset value")
    return RegisterField(
        name=node.inst_name,
        low=node.low,
        width=node.width,
        kind=kind,
        reset=reset,
        description=_text(node),
        encode=encode.type_name if encode else None,
        locked_by=lock.inst_name if lock is not None else None,
        increment_bits=(node.get_property("incrwidth") or 1) if kind is FieldKind.COUNTER else 1,
    )


def _kind(node: FieldNode) -> FieldKind:
    get = node.get_property
    access = (get("sw"), get("hw"))
    read, write, both, none = AccessType.r, AccessType.w, AccessType.rw, AccessType.na
    extras = {name for name in ("singlepulse", "stickybit", "counter", "hwclr", "intr", "sticky") if get(name)}
    extras |= {"woclr"} if get("onwrite") is OnWriteType.woclr else set()
    extras |= {"incrsaturate"} if "counter" in extras and get("incrsaturate") else set()
    plain = get("onread") is None and get("onwrite") in (None, OnWriteType.woclr)
    known = {
        ((read, none), frozenset()): FieldKind.CONSTANT,
        ((read, write), frozenset()): FieldKind.STATUS,
        ((both, read), frozenset()): FieldKind.CONTROL,
        ((both, write), frozenset({"woclr", "stickybit"})): FieldKind.STICKY,
        ((write, read), frozenset({"singlepulse"})): FieldKind.PULSE,
        ((read, none), frozenset({"counter", "incrsaturate", "hwclr"})): FieldKind.COUNTER,
        ((both, both), frozenset()): FieldKind.EXTERNAL,
    }
    kind = known.get((access, frozenset(extras)))
    if kind is None or not plain:
        described = f"sw={access[0].name}; hw={access[1].name}; " + "; ".join(sorted(extras))
        raise ValueError(f"{node.get_path()}: a field with {described} is not supported (see FieldKind)")
    return kind


def _enums(nodes) -> dict[str, dict[str, tuple[int, str]]]:
    used = [node.get_property("encode") for node in nodes if isinstance(node, FieldNode)]
    return {
        enum.type_name: {member.name: (member.value, " ".join((member.rdl_desc or "").split())) for member in enum}
        for enum in used
        if enum
    }
