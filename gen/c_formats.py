"""Encodings as C99: codes as enums, words and beats as structs with functions that pack and unpack them."""

import re
from pathlib import Path

from gen.encodings import ENUMS, LAYOUTS, Layout, meanings, transfer_layouts
from spec.rlkv import RlkvConfig

__all__ = ["formats_header", "transfers_header"]

HELPERS = Path(__file__).parent / "templates" / "formats.h"
GUARD = """\
/* {title}
 * Written by `bitmosaic registers`: do not edit. What the fields mean: docs/encodings.md.
 *
 * What `pack` takes `unpack` gives back if `fits` says so: every field fits its width. A name that is a keyword ends
 * in `_`. __bp is a field's lowest bit, __bw its width. */
#ifndef {guard}
#define {guard}

{body}
#endif
"""


def formats_header() -> str:
    """``bitmosaic_formats.h``: what is the same in every build."""
    body = [HELPERS.read_text(), *(_enum(enum) for enum in ENUMS), *(_layout(layout) for layout in LAYOUTS.values())]
    return _header("Codes, headers and beats.", "BITMOSAIC_FORMATS_H", body)


def transfers_header(preset: str, config: RlkvConfig) -> str:
    """``bitmosaic_transfers.h``: operations and commands of the address generator of a preset."""
    title = f"Operations and commands of the KV address generator of preset {preset}."
    body = ['#include "bitmosaic_formats.h"\n', *(_layout(layout) for layout in transfer_layouts(config))]
    return _header(title, "BITMOSAIC_TRANSFERS_H", body)


def _header(title: str, guard: str, body: list[str]) -> str:
    return GUARD.format(title=title, guard=guard, body="\n".join(body))


def _enum(enum: type) -> str:
    prefix = "BITMOSAIC_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.__name__).upper()
    texts = meanings(enum)
    lines = [f"    {prefix}__{member.name} = {int(member)}," + f" /* {texts[member.name]} */" * bool(texts[member.name])
             for member in enum]  # fmt: skip
    return "\n".join(["enum {", *lines, "};", ""])


def _layout(layout: Layout) -> str:
    """A struct of the fields; ``pack``, ``unpack`` and ``fits`` of it: a number, or an array of 32-bit words."""
    wide, struct = layout.words, f"struct bitmosaic_{layout.name}"
    macro = f"BITMOSAIC_{layout.name.upper()}"
    fields = [(name + "_" * (name == "short"), field) for field in layout.fields for name in [field.name]]
    lines = [f"/* {layout.title.replace('`', '')}. */", f"#define {macro}__BYTES {-(-layout.bits // 8)}u"]
    if wide:
        lines.append(f"#define {macro}__WORDS {-(-layout.bits // 32)}u")
    for _, field in fields:
        place = f"{macro}__{field.name.upper()}"
        lines += [f"#define {place}__bp {field.offset}u", f"#define {place}__bw {field.width}u"]
    lines += ["", f"{struct} {{"]
    lines += [
        f"    uint{32 if f.width <= 32 else 64}_t {name};" + f" /* {f.text} */" * bool(f.text) for name, f in fields
    ]
    tests = [f"!((uint64_t)fields->{name} >> {f.width})" for name, f in fields if f.width not in (32, 64)]
    lines += ["};", "", f"static inline int bitmosaic_fits_{layout.name}(const {struct} *fields)", "{"]
    lines += ["    return " + " &&\n           ".join(tests) + ";", "}", ""]
    if wide:
        lines += [f"static inline void bitmosaic_pack_{layout.name}(uint32_t *words, const {struct} *fields)", "{"]
        lines += [f"    for (unsigned word = 0; word < {macro}__WORDS; word++)", "        words[word] = 0;"]
        lines += [f"    bitmosaic_put(words, {f.offset}u, {f.width}u, fields->{name});" for name, f in fields]
    else:
        terms = [f"((uint64_t)fields->{n} & {hex((1 << f.width) - 1)}u) << {f.offset}" for n, f in fields]
        lines += [f"static inline uint64_t bitmosaic_pack_{layout.name}(const {struct} *fields)", "{"]
        lines.append("    return " + " |\n           ".join(terms) + ";")
    argument = "const uint32_t *words" if wide else "uint64_t word"
    lines += ["}", "", f"static inline {struct} bitmosaic_unpack_{layout.name}({argument})", "{"]
    lines.append(f"    {struct} fields;\n")
    for name, f in fields:
        kind = f"(uint{32 if f.width <= 32 else 64}_t)"
        bits = (
            f"bitmosaic_get(words, {f.offset}u, {f.width}u)"
            if wide
            else f"(word >> {f.offset} & {hex((1 << f.width) - 1)}u)"
        )
        lines.append(f"    fields.{name} = {kind}{bits};")
    return "\n".join([*lines, "    return fields;", "}", ""])
