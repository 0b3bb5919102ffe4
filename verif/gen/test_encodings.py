"""Encodings as C and as Markdown: the header compiles without a warning, and packs as Python and the hardware do."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch

from gen.encodings import LAYOUTS, markdown, transfer_layouts
from gen.registers import write_registers
from golden.attention.query_packet import write_query
from golden.attention.slots import write_slots
from golden.core import weight_stream
from hw.rlkv.layouts import CommandLayout, OperationLayout
from sim import layout as amaranth_layout
from sim.beats import to_ints
from sim.build import ROOT
from spec.attention import AttentionError
from spec.kv_block import HEADER_CHECK, KvHeader
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from spec.rlkv_transfers import RlkvOp
from spec.system import address_generators, core_preset
from verif.golden.weights_helpers import random_weight

STRICT = ["-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-pedantic", "-O1"]


def member(name):
    return name + "_" * (name == "short")


def wrappers(layout):
    """C functions that take and give fields as an array of numbers, since inline ones cannot be called from here."""
    names = [member(field.name) for field in layout.fields]
    sets = [f"f.{name} = ({'uint64_t' if field.width > 32 else 'uint32_t'})v[{k}];"
            for k, (name, field) in enumerate(zip(names, layout.fields, strict=True))]  # fmt: skip
    gets = " ".join(f"v[{k}] = f.{name};" for k, name in enumerate(names))
    struct = f"struct bitmosaic_{layout.name} f;"
    pack = f"bitmosaic_pack_{layout.name}(w, &f);" if layout.words else f"*w = bitmosaic_pack_{layout.name}(&f);"
    word = "uint32_t" if layout.words else "uint64_t"
    argument = "w" if layout.words else "*w"
    return f"""
void pack_{layout.name}({word} *w, const uint64_t *v);
void pack_{layout.name}({word} *w, const uint64_t *v) {{ {struct} {" ".join(sets)} {pack} }}
void unpack_{layout.name}(const {word} *w, uint64_t *v);
void unpack_{layout.name}(const {word} *w, uint64_t *v)
{{ {struct} f = bitmosaic_unpack_{layout.name}({argument}); {gets} }}
int fits_{layout.name}(const uint64_t *v);
int fits_{layout.name}(const uint64_t *v) {{ {struct} {" ".join(sets)} return bitmosaic_fits_{layout.name}(&f); }}
"""


@pytest.fixture(scope="module", params=address_generators())
def compiled(request, tmp_path_factory):
    """Preset and a shared library of the headers' functions."""
    path = tmp_path_factory.mktemp(request.param)
    write_registers(path, preset=request.param)
    layouts = [*LAYOUTS.values(), *transfer_layouts(address_generators()[request.param])]
    helpers = """
uint32_t odd(uint64_t word);
uint32_t odd(uint64_t word) { return bitmosaic_odd(word); }
uint32_t nibbles(uint64_t word);
uint32_t nibbles(uint64_t word) { return bitmosaic_nibbles(word); }
uint32_t slot(uint8_t *slot, const int8_t *codes, uint32_t channels, uint16_t scale, uint16_t value_scale);
uint32_t slot(uint8_t *slot, const int8_t *codes, uint32_t channels, uint16_t scale, uint16_t value_scale)
{ bitmosaic_pack_slot(slot, codes, channels, scale, value_scale); return bitmosaic_slot_bytes(channels); }
"""
    text = '#include "bitmosaic_transfers.h"\n' + helpers + "".join(map(wrappers, layouts))
    (path / "all.c").write_text(text)
    for command in (["cc", "-std=c99"], ["c++", "-x", "c++", "-std=c++11"]):
        flags = (
            [*STRICT, "-shared", "-fPIC", "all.c", "-o", "all.so"] if command[0] == "cc" else [*STRICT, "-c", "all.c"]
        )
        subprocess.run([*command, *flags], cwd=path, check=True)
    return request.param, ctypes.CDLL(str(path / "all.so"))


def call(library, layout, values):
    """Words of the C function; checks that it takes them apart again."""
    kind, count = (ctypes.c_uint32, -(-layout.bits // 32)) if layout.words else (ctypes.c_uint64, 1)
    given, taken = ((ctypes.c_uint64 * len(values))(*given) for given in (values, [0] * len(values)))
    words = (kind * count)(*[123] * count)
    assert getattr(library, f"fits_{layout.name}")(given) == 1
    getattr(library, f"pack_{layout.name}")(words, given)
    getattr(library, f"unpack_{layout.name}")(words, taken)
    assert list(taken) == list(values), layout.name
    return sum(word << 8 * ctypes.sizeof(kind) * k for k, word in enumerate(words))


def random_fields(layout, rng):
    return [int(rng.integers(1 << field.width, dtype=np.uint64)) if field.width < 64 else int(rng.integers(1 << 63))
            for field in layout.fields]  # fmt: skip


def test_document_is_current():
    assert (ROOT / "docs" / "encodings.md").read_text() == markdown(), "write it again: bitmosaic registers --docs docs"


def test_every_word_packs_as_its_fields_say(compiled, rng):
    _, library = compiled
    for layout in LAYOUTS.values():
        for _ in range(50):
            values = random_fields(layout, rng)
            wanted = sum(value << field.offset for value, field in zip(values, layout.fields, strict=True))
            assert call(library, layout, values) == wanted
        for place, field in enumerate(layout.fields):
            if field.width < 32:
                values = [0] * len(layout.fields)
                values[place] = 1 << field.width
                given = (ctypes.c_uint64 * len(values))(*values)
                assert getattr(library, f"fits_{layout.name}")(given) == 0, field.name


def test_transfers_pack_as_the_hardware_reads_them(compiled, rng):
    preset, library = compiled
    config = address_generators()[preset]
    for layout, hardware in zip(transfer_layouts(config), (OperationLayout, CommandLayout), strict=True):
        for _ in range(50):
            values = random_fields(layout, rng)
            fields = {
                field.name: np.array([value], np.uint64) for field, value in zip(layout.fields, values, strict=True)
            }
            assert call(library, layout, values) == to_ints(amaranth_layout.pack(hardware(config), fields))[0]


def test_headers_are_those_of_the_models(compiled, rng):
    """A block's header with its check, a query's header, channel headers with their parity."""
    _, library = compiled
    transforms = {"transform0": KvTransform.WHT, "transform1": KvTransform.RFFT}
    sizes = {"channels": 64, "segment0": 32, "rows": 100, "token": 77, "span": 128, "exponent0": -3, "exponent1": 2}
    header = KvHeader(format=KvFormat.K2S, metadata=KvMetadata.F6, **transforms, **sizes)
    raw = [1, 2, 1, 2, 2, 7, 3, 99, 2, 77, 21, 26]
    check = library.nibbles(ctypes.c_uint64(call(library, LAYOUTS["kv_header"], [*raw, 0]))) ^ HEADER_CHECK
    assert call(library, LAYOUTS["kv_header"], [*raw, check]) == header.word()
    packet = write_query(torch.zeros(64, dtype=torch.float16), header, np.arange(64))
    assert call(library, LAYOUTS["query_header"], [7, 3, 1, 2]) == int.from_bytes(packet[:8], "little")
    config, weight = core_preset("tiny"), random_weight(rng, 4, 40, 32)
    first = weight_stream(config, weight, 1).octets()[0].tobytes()
    for channel in range(config.rows):
        word = int.from_bytes(first[8 * channel :][:8], "little")
        fields = (ctypes.c_uint64 * 4)()
        library.unpack_channel_header(ctypes.byref(ctypes.c_uint64(word)), fields)
        scale = weight.channel_scale[channel].view(torch.int32).item() & 0xFFFFFFFF
        assert fields[0] == scale
        assert library.odd(ctypes.c_uint64(word)) == 0
        assert library.odd(ctypes.c_uint64(word ^ 1)) == 1


@pytest.mark.parametrize("channels", [8, 64, 128])
def test_slots_are_those_of_the_models(compiled, rng, channels):
    _, library = compiled
    codes = rng.integers(-128, 128, (1, channels)).astype(np.int8)
    scales = torch.tensor([[0.25], [3.5]], dtype=torch.float16)
    wanted = write_slots(torch.from_numpy(codes), scales[0], scales[1])[0]
    slot = (ctypes.c_uint8 * len(wanted))(*[255] * len(wanted))
    bits = [ctypes.c_uint16(int(scale)) for scale in scales[:, 0].view(torch.int16)]
    size = library.slot(slot, codes.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint32(channels), *bits)
    assert size == len(wanted)
    assert bytes(slot) == wanted.tobytes()


def test_codes_have_names(tmp_path):
    write_registers(tmp_path)
    text = (tmp_path / "bitmosaic_formats.h").read_text()
    for code in (RlkvOp.READ, KvFormat.V158, AttentionError.QUERY):
        assert f"__{code.name} = {int(code)}," in text
    with pytest.raises(ValueError, match=r"preset must be one of paper, tiny, not 'edge'"):
        write_registers(tmp_path, preset="edge")
