"""Every encoding that software meets outside registers: headers, beats and their codes, from ``spec`` and the streams'
layouts; as one Markdown document. As C: :mod:`gen.c_formats`."""

import ast
import functools
import inspect
import textwrap
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from amaranth.lib import data

from hw.rlkv.layouts import CommandLayout, OperationLayout
from spec.attention import PACKET_USER, QUERY_HEADER, SCORE_DATA, SCORE_USER, WEIGHT_DATA, AttentionError
from spec.core import CHANNEL_HEADER
from spec.datatypes import INTEGERS, Datatype
from spec.kv_block import HEADER
from spec.kv_config import OUTPUT_USER, KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from spec.packet import GROUP_HEADER, ROW_HEADER, Field
from spec.rlkv import RlkvConfig
from spec.rlkv_transfers import CommandKind, KvPart, RlkvCommand, RlkvError, RlkvOp, RlkvOperation
from spec.system import address_generators

__all__ = ["ENUMS", "LAYOUTS", "Layout", "markdown", "meanings", "transfer_layouts"]


@dataclass(frozen=True)
class Layout:
    """A word or beat of named fields; ``bits`` with those that are always 0; ``words``: in C an array of words."""

    name: str
    title: str
    bits: int
    fields: tuple[Field, ...]
    words: bool = False


ENUMS = (Datatype, KvFormat, KvTransform, KvMetadata, KvError, AttentionError, KvPart, RlkvOp, CommandKind, RlkvError)
"""Codes, in the order of the C header."""

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("row_header", "Row header: begins a row packet", 16, ROW_HEADER),
        Layout("group_header", "Group header: before the codes of a group", 16, GROUP_HEADER),
        Layout("channel_header", "Channel header: first word of a slice of a weight packet", 64, CHANNEL_HEADER),
        Layout("kv_header", "Block header: first word of a KV block", 64, HEADER),
        Layout("kv_output_user", "TUSER of the KV engine's elements", 32, OUTPUT_USER),
        Layout("query_header", "Query header: first word of a query packet", 64, QUERY_HEADER),
        Layout("packet_user", "TUSER of packets and of probabilities", 2, PACKET_USER),
        Layout("score_data", "TDATA of scores", 64, SCORE_DATA),
        Layout("score_user", "TUSER of scores", 2, SCORE_USER),
        Layout("weight_data", "TDATA of probabilities", 32, WEIGHT_DATA),
    )
}
"""Words and beats that are the same in every build."""


@functools.cache
def meanings(owner: type) -> dict[str, str]:
    """The text below each member of an enum or a dataclass, '' where there is none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
    found = {}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", [])), None)
        if isinstance(target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            found[target.id] = " ".join(text.replace("``", "`").split())
    return found


def transfer_layouts(config: RlkvConfig) -> tuple[Layout, Layout]:
    """Operation and command beats of an address generator: their widths are those of its build."""
    made = []
    for name, title, owner, layout in (
        ("operation", "Operation: a beat of `s_axis_operations`", RlkvOperation, OperationLayout(config)),
        ("command", "Command: a beat of `m_axis_commands`", RlkvCommand, CommandLayout(config)),
    ):
        fields = tuple(Field(key, at.offset, at.width, meanings(owner)[key]) for key, at in layout)
        made.append(Layout(name, title, -(-data.StructLayout.cast(layout).size // 8) * 8, fields, words=True))
    return tuple(made)


PAGE = Path(__file__).parent / "templates" / "encodings.md"


def markdown() -> str:
    """The document of all encodings."""
    builds = {preset: transfer_layouts(config) for preset, config in address_generators().items()}
    parts = {name: layout_table(layout.title, {"bits": layout}) for name, layout in LAYOUTS.items()}
    for place, name in enumerate(("operation", "command")):
        found = {f"bits: `{preset}`": layouts[place] for preset, layouts in builds.items()}
        parts[name] = layout_table(next(iter(found.values())).title, found)
    parts |= {enum.__name__: enum_table(enum) for enum in ENUMS if enum is not Datatype}
    return PAGE.read_text().format(**parts, datatype=datatype_table())


def layout_table(title: str, builds: dict[str, Layout]) -> str:
    """A column of bits for each build."""
    lines = [f"### {title}", "", f"| {' | '.join(builds)} | field | |", "|---" * (len(builds) + 2) + "|"]
    for fields in zip(*(layout.fields for layout in builds.values()), strict=True):
        spans = (f"{f.offset + f.width - 1}:{f.offset}" if f.width > 1 else f"{f.offset}" for f in fields)
        lines.append(f"| {' | '.join(spans)} | `{fields[0].name}` | {fields[0].text} |")
    return "\n".join(lines)


def enum_table(enum: type[IntEnum]) -> str:
    lines = [f"### {enum.__name__}", "", "| code | name | |", "|---:|---|---|"]
    return "\n".join([*lines, *(f"| {member} | {member.name} | {meanings(enum)[member.name]} |" for member in enum)])


def datatype_table() -> str:
    """Codes of datatypes, with the integer that each code of theirs stands for."""
    lines = [
        "### Datatype",
        "",
        "| code | name | bits | terms | value of code 0, 1, 2, ... |",
        "|---:|---|---:|---:|---|",
    ]
    for datatype in Datatype:
        values = ", ".join("reserved" if value is None else str(value) for value in datatype.values)
        values = "two's complement" if datatype in INTEGERS else values
        lines.append(f"| {datatype} | {datatype.name} | {datatype.bits} | {datatype.terms} | {values} |")
    return "\n".join([*lines, "", "FP4 counts half-units."])
