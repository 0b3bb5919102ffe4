"""Register maps as C headers and as Markdown, from the SystemRDL files beside the tops; and the encodings with them."""

import os
import re
import tempfile
from pathlib import Path

from peakrdl_cheader.exporter import CHeaderExporter

from gen import c_formats, encodings
from hw.axi import definitions
from hw.axi.definitions import MAPS, FieldKind, Register, RegisterMap, compile_map, load_map
from shell.output import output_directory, write_file
from spec import checks
from spec.system import address_generators

__all__ = ["c_header", "markdown", "write_registers"]

RDL = Path(definitions.__file__).parents[1] / "tops"
COMMAND = "bitmosaic registers"


def write_registers(out_dir: Path, *, preset: str = "paper", docs: Path | None = None) -> list[Path]:
    """Write ``<map>.h`` for each map, ``bitmosaic_formats.h``, ``bitmosaic_transfers.h``, and ``registers.md`` and
    ``encodings.md``; returns what was written.

    Parameters
    ----------
    out_dir : Path
        Directory for the files; made if need be.
    preset : str
        Whose address generator ``bitmosaic_transfers.h`` is for.
    docs : Path, optional
        Directory for the Markdown; default ``out_dir``.

    Raises
    ------
    OSError
        ``out_dir`` is no directory, or what a file is to replace is none.
    ValueError
        A register map is invalid, or ``preset`` has no address generator.
    """
    out_dir = Path(out_dir)
    docs = Path(docs or out_dir)
    generator = checks.named("preset", preset, address_generators())
    output_directory(out_dir, "out")
    texts = {out_dir / f"{load_map(name).name}.h": c_header(name) for name in MAPS}
    texts[out_dir / "bitmosaic_formats.h"] = c_formats.formats_header()
    texts[out_dir / "bitmosaic_transfers.h"] = c_formats.transfers_header(preset, generator)
    texts |= {docs / "registers.md": markdown(), docs / "encodings.md": encodings.markdown()}
    for path, text in texts.items():
        write_file(path, text)
    return list(texts)


def c_header(name: str) -> str:
    """C header of the map ``name``: masks, shifts, a struct of the registers (by PeakRDL), and the enums."""
    registers = load_map(name)
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        path = os.path.join(scratch, f"{registers.name}.h")
        CHeaderExporter().export(compile_map(RDL / f"{name}.rdl"), path)
        text = Path(path).read_text()
    # C99 has no static_assert.
    guard = "#if defined(__cplusplus) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L)"
    text = re.sub(r"^static_assert\(.*\);$", rf"{guard}\n\g<0>\n#endif", text, flags=re.M)
    end = text.index("#ifdef __cplusplus\n}")
    return text[:end] + "".join(_c_enum(registers, enum) for enum in registers.enums) + text[end:].rstrip("\n") + "\n"


def _c_enum(registers: RegisterMap, enum: str) -> str:
    prefix = f"{registers.name}__{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', enum)}".upper()
    members = [
        f"    {prefix}__{member} = {value}, /* {description} */"
        for member, (value, description) in registers.enums[enum].items()
    ]
    return "\n".join([f"// enum - {registers.name}::{enum}", "enum {", *members, "};", "", ""])


def markdown() -> str:
    """All register maps as one Markdown document."""
    parts = [
        "# Registers",
        "",
        f"Written by `{COMMAND}` from the SystemRDL files in `hw/tops/`. Do not edit.",
        "",
        "Registers are 32 bits wide and little endian, at byte addresses of AXI4-Lite. An access to an address not",
        "listed, or not a multiple of 4, is answered with SLVERR. Writes change the bytes that their strobes name.",
        "Bits not listed read as 0 and ignore writes. Of a 64-bit register read the low word first: it keeps the high",
        "word for the read of it that follows.",
        "",
        "| access | meaning |",
        "|---|---|",
        "| ro | constant |",
        "| ro, status | as the hardware is at that moment |",
        "| ro, counter | counts up to all ones |",
        "| rw | a register |",
        "| rw, write 1 to clear | set by the hardware, bit by bit; an event wins over a clear of the same cycle |",
        "| wo, pulse | writing 1 does something once; reads as 0 |",
        "| rw, external | kept by the hardware, which may refuse a value |",
        "",
    ]
    for name in MAPS:
        parts += _map_section(name, load_map(name))
    return "\n".join(parts).rstrip("\n") + "\n"


def _map_section(name: str, registers: RegisterMap) -> list[str]:
    heads = [register for register in registers.registers if register.index in (None, 0)]
    counts = {head.name: sum(other.name == head.name for other in registers.registers) for head in heads}
    parts = [f"## {registers.title}", "", f"{registers.description} (`hw/tops/{name}.rdl`)", ""]
    parts += ["| address | register | |", "|---|---|---|"]
    for register in heads:
        parts.append(f"| {_addresses(register, counts)} | `{_label(register, counts)}` | {register.title} |")
    parts.append("")
    for register in heads:
        parts += [f"### {_label(register, counts)}: {register.title.lower()}", ""]
        parts += ["| bits | field | access | reset | |", "|---|---|---|---|---|"]
        for field in sorted(register.fields, key=lambda field: field.low):
            bits = f"{field.low + field.width - 1}:{field.low}" if field.width > 1 else f"{field.low}"
            reset = "build" if field.kind is FieldKind.STATUS else "see text"
            reset = reset if field.reset is None else f"0x{field.reset:x}"
            lock = "; refused while a job runs" if field.locked_by else ""
            encode = f" See {field.encode}." if field.encode else ""
            text = f"{field.description}{encode}"
            parts.append(f"| {bits} | {field.name} | {field.kind.value}{lock} | {reset} | {text} |")
        parts.append("")
    for enum, members in registers.enums.items():
        parts += [f"### {enum}", "", "| value | name | |", "|---|---|---|"]
        parts += [f"| {value} | {member} | {description} |" for member, (value, description) in members.items()]
        parts.append("")
    return parts


def _label(register: Register, counts: dict[str, int]) -> str:
    return register.name if register.index is None else f"{register.name}[0..{counts[register.name] - 1}]"


def _addresses(register: Register, counts: dict[str, int]) -> str:
    last = register.address + 4 * (counts[register.name] - 1)
    return f"0x{register.address:03x}" + (f"..0x{last:03x}" if register.index is not None else "")
