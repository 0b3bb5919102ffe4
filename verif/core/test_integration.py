"""docs/integration.md, the C driver, the timing diagrams and the FuseSoC file: current, and true to the core."""

import ctypes
import json
import subprocess
from xml.etree import ElementTree

import pytest

from gen.registers import c_header
from gen.tops import tops
from golden.document import write_between_markers
from sim.build import ROOT
from spec.core import CORE_PRESETS, core_preset
from spec.packet import GROUP_SIZES
from studies.docs import core_ports as integration

DOCS = ROOT / "docs"


def test_ports_are_current(tmp_path):
    page = tmp_path / "page.md"
    text = (DOCS / "integration.md").read_text()
    page.write_text(text)
    write_between_markers(page, integration.table(), integration.MARKERS)
    assert page.read_text() == text, "write it again: python -m studies.docs.core_ports"


@pytest.mark.parametrize("name", ["start", "weights", "results"])
def test_diagrams_show_ports(name):
    """Every wave is a port of the core, and all have the same number of cycles, with a label for each value."""
    source = json.loads((DOCS / "wavedrom" / f"{name}.json").read_text())
    lanes = [lane for entry in source["signal"] for lane in (entry[1:] if isinstance(entry, list) else [entry])]
    known = {port for port, _, _ in integration.ports("dense")}
    assert {lane["name"].split()[0] for lane in lanes} <= known
    assert len({len(lane["wave"]) for lane in lanes}) == 1
    for lane in lanes:
        values = sum(letter in "3456789" for letter in lane["wave"])
        assert len(lane.get("data", [])) == values, lane["name"]
    assert f"wavedrom/{name}.svg" in (DOCS / "integration.md").read_text()
    texts = [element.text for element in ElementTree.parse(DOCS / "wavedrom" / f"{name}.svg").iter() if element.text]
    labels = [label for lane in lanes for label in (lane["name"], *lane.get("data", []))]
    for label in (source["head"]["text"], *labels):
        assert label in texts, "render it again: docs/integration.md, section 8"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The C driver as a shared library, compiled with every warning an error."""
    path = tmp_path_factory.mktemp("driver")
    (path / "bitmosaic_core.h").write_text(c_header("core"))
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC", f"-I{path}"]
    subprocess.run([*command, str(DOCS / "driver.c"), "-o", str(path / "driver.so")], check=True)
    return ctypes.CDLL(str(path / "driver.so"))


class Tiling(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("token_blocks", "block_tokens", "super_blocks", "super_outputs", "chunks", "chunk_inputs")
    ]


@pytest.mark.parametrize("preset", CORE_PRESETS)
def test_driver_cuts_jobs_as_the_core_does(driver, rng, preset):
    config = core_preset(preset)
    build = config.rows | config.columns << 8
    blocks = config.chunk | config.block_outputs << 16 | config.token_sets << 28
    sizes = sum(1 << GROUP_SIZES.index(size) for size in config.group_sizes) << 16
    driver.bitmosaic_tile.restype = Tiling
    for _ in range(300):
        job = [int(rng.integers(1, most)) for most in (200, config.max_inputs + 1, config.max_outputs + 1)]
        found, wanted = driver.bitmosaic_tile(build, blocks, sizes, *job), config.tiling(*job)
        assert (found.token_blocks, found.super_blocks, found.chunks) == tuple(
            len(part) for part in (wanted.tokens, wanted.outputs, wanted.chunks)
        )
        assert found.block_tokens == config.block_tokens
        if len(wanted.outputs) > 1:
            assert found.super_outputs == wanted.outputs[0]
        if len(wanted.chunks) > 1:
            assert found.chunk_inputs == wanted.chunks[0]


class Image(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("end", ctypes.c_void_p), ("packets", ctypes.c_uint32)]


class Job(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("tokens", "inputs", "outputs", "group_size", "fp16", "datatypes")),
        ("weights", Image),
        ("activations", Image),
    ]


QUEUE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Image), ctypes.c_uint32, ctypes.c_uint32
)
WAIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class Dma(ctypes.Structure):
    _fields_ = [("queue", QUEUE), ("wait", WAIT), ("context", ctypes.c_void_p)]


@pytest.mark.parametrize("fails", [False, True])
def test_driver_queues_what_the_streams_take(driver, fails):
    """On registers in memory: what it writes, and which packets it queues for which stream."""
    config = core_preset("tiny")
    registers = (ctypes.c_uint32 * 64)()
    registers[0], registers[1] = 0x424D5343, 1 << 16
    registers[2], registers[3] = config.rows | config.columns << 8, 1 << 16
    registers[5] = config.chunk | config.block_outputs << 16 | config.token_sets << 28
    registers[0x80 // 4], registers[0x84 // 4] = 5, 7
    assert driver.bitmosaic_probe(registers) == 0
    driver.bitmosaic_counter.restype = ctypes.c_uint64
    assert driver.bitmosaic_counter(registers, ctypes.c_size_t(0x80)) == 5 | 7 << 32
    queued = []

    def queue(_context, stream, _image, first, count):
        queued.append((stream, first, count))
        return 0

    job = Job(6, 100, 11, 0, 1, 0x40, Image(None, None, 12), Image(None, None, 12))
    dma = Dma(QUEUE(queue), WAIT(lambda _context: int(fails)), None)
    code = driver.bitmosaic_run(registers, ctypes.byref(job), ctypes.byref(dma))
    assert code == (-2 if fails else 0)
    # 6 tokens in blocks of 4 and 2, 11 channels in 2 super-blocks, 100 inputs in 2 chunks.
    assert queued == [(0, 0, 12), (1, 0, 8), (1, 0, 8), (0, 0, 12), (1, 8, 4), (1, 8, 4)]
    assert [registers[address // 4] for address in (0x40, 0x44, 0x48, 0x4C, 0x50)] == [6, 100, 11, 256, 0x40]
    assert registers[0x20 // 4] == (2 if fails else 1), "abort, or start"
    registers[0x24 // 4], registers[0x28 // 4] = 4, 3 | 1 << 16
    assert driver.bitmosaic_run(registers, ctypes.byref(job), ctypes.byref(dma)) == 3
    registers[0] = 0
    assert driver.bitmosaic_probe(registers) == -1


def test_fusesoc_file_names_what_is_there():
    text = (ROOT / "bitmosaic.core").read_text()
    assert text.startswith("CAPI=2:\n")
    assert "core" in [top.name for top in tops("dense")]
    assert "- build/verilog/core.v" in text
    assert "toplevel: core" in text
    assert (ROOT / "sim" / "bitmosaic.vlt").is_file()
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert f"name: ::bitmosaic:{version.split(chr(34))[1]}\n" in text
    assert f"::bitmosaic:{version.split(chr(34))[1]}" in (DOCS / "integration.md").read_text()
