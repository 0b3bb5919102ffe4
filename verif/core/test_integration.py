"""The C driver, the timing diagrams and the FuseSoC file: current, and true to the core."""

import ctypes
import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from gen.emit_tops import emit_tops
from gen.tops import tops
from golden.core import CoreJob, activation_stream, job_model, result_beats, weight_stream
from hw.tops.core import AcceleratorCoreAxi
from sim.build import ROOT
from sim.runner import run
from sim.toolchain import environment
from spec.datatypes import Datatype
from spec.packet import GROUP_SIZES
from spec.system import SYSTEMS, core_preset
from studies.docs.ports import ports
from verif.core.driver import Device, Job, Platform, Tiling, compile_driver, load_driver
from verif.core.fuzz import build_core
from verif.golden.weights_helpers import random_activations, random_weight

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["start", "weights", "results"])
def test_diagrams_show_ports(name):
    """Every wave is a port of the core, and all have the same number of cycles, with a label for each value."""
    source = json.loads((DOCS / "wavedrom" / f"{name}.json").read_text())
    lanes = [lane for entry in source["signal"] for lane in (entry[1:] if isinstance(entry, list) else [entry])]
    known = set(ports(AcceleratorCoreAxi(core_preset("dense"))))
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
def library(tmp_path_factory):
    return compile_driver(tmp_path_factory.mktemp("driver"))


def device_of(config):
    sizes = sum(1 << GROUP_SIZES.index(size) for size in config.group_sizes)
    counts = (config.rows, config.columns, config.datapath.lanes, config.token_sets, config.chunk, config.block_outputs)
    datatypes = sum(1 << datatype for datatype in config.datapath.datatypes)
    return Device(None, *counts, sizes, datatypes, config.max_inputs, config.max_outputs)


@pytest.mark.parametrize("preset", SYSTEMS)
def test_driver_cuts_jobs_as_the_core_does(library, rng, preset):
    driver, config = load_driver(library), core_preset(preset)
    device, found = device_of(config), Tiling()
    for _ in range(300):
        job = [int(rng.integers(1, most)) for most in (200, config.max_inputs + 1, config.max_outputs + 1)]
        assert driver.bitmosaic_tile(ctypes.byref(device), *job, ctypes.byref(found)) == 0
        wanted = config.tiling(*job)
        assert (found.token_blocks, found.super_blocks, found.chunks) == tuple(
            len(part) for part in (wanted.tokens, wanted.outputs, wanted.chunks)
        )
        assert found.block_tokens == config.block_tokens
        if len(wanted.outputs) > 1:
            assert found.super_outputs == wanted.outputs[0]
        if len(wanted.chunks) > 1:
            assert found.chunk_inputs == wanted.chunks[0]
    for job, code in (((0, 1, 1), 3), ((1, 0, 1), 3), ((1, 1, 0), 3), ((1, config.max_inputs + 1, 1), 4)):
        assert driver.bitmosaic_tile(ctypes.byref(device), *job, ctypes.byref(found)) == code


@pytest.mark.parametrize("build", [[0, 0, 0, 0], [0xFFFFFFFF] * 4, [1, 1, 0, 0]])
def test_driver_refuses_what_is_no_core(library, build):
    """Nothing there, a bus of ones, an ID alone: no division by a zero that was read."""
    answers = {0: 0x424D5343, 4: 1 << 16, 8: build[0], 0x14: build[1], 0xC: build[2], 0x10: build[3]}
    answers |= {0: build[0], 4: build[0]} if build[0] in (0, 0xFFFFFFFF) else {}
    platform = Platform.of(read=lambda offset: answers[offset], now=lambda: 0)
    assert load_driver(library).bitmosaic_open(ctypes.byref(Device()), ctypes.byref(platform), 10) == -1


SPECIALS = {Datatype.FP3: (6, -3, 3, -6), Datatype.FP4: (-16, 10, -10, 16)}
"""Not those after a reset."""


class Layers:
    """Jobs for the driver: images as files hold them, what the core must answer."""

    def __init__(self, config, rng):
        self.config, self.rng, self.vectors, self.jobs = config, rng, {}, []

    def add(self, tokens, inputs, outputs, *, fp16=False, infinite=False):
        """Returns the number of a job with random contents."""
        config, number = self.config, len(self.jobs)
        group_size = config.datapath.group_size
        weight = random_weight(self.rng, outputs, inputs, group_size, special_values=SPECIALS)
        activations = random_activations(self.rng, tokens, inputs)
        if infinite:
            activations[1, 5] = float("inf")
        job = CoreJob.of(config, weight, tokens, fp16=fp16)
        streams = weight_stream(config, weight, tokens), activation_stream(config, activations, outputs)
        model = job_model(config, job, *(packets.split() for packets in streams), SPECIALS)
        images = weight_stream(config, weight, 1), activation_stream(config, activations, 1)
        for name, packets in zip(("weights", "activations"), images, strict=True):
            self.vectors[f"{number}.{name}"] = packets.octets().ravel()
            self.vectors[f"{number}.{name}.ends"] = packets.lengths.cumsum() - 1
        beats = result_beats(config, model.result, inputs)
        wanted = beats["tdata"][beats["tkeep"].astype(bool)]
        size = GROUP_SIZES.index(group_size)
        registers = [tokens, inputs, outputs, size, int(fp16), sum(1 << kind for kind in job.datatypes)]
        self.jobs.append((registers, wanted, model))
        return number

    def step(self, number, ticks=30_000, datatypes=None, **changes):
        registers, wanted, _ = self.jobs[number]
        registers = [*registers[:-1], registers[-1] if datatypes is None else datatypes]
        return {"job": number, "registers": registers, "size": len(wanted), "ticks": ticks} | changes


@pytest.mark.sim
@pytest.mark.parametrize("sleeps", [True, False], ids=["interrupts", "polling"])
def test_driver_on_the_simulated_core(library, rng, seed, sleeps):
    """Jobs bit for bit; refused ones, failed streams and time-outs, each followed by a job that is exact again."""
    config = core_preset("tiny")
    layers = Layers(config, rng)
    plain, half = layers.add(6, 100, 11), layers.add(5, 40, 6, fp16=True)
    infinite = layers.add(3, 33, 4, infinite=True)
    values = [*SPECIALS[Datatype.FP3], *SPECIALS[Datatype.FP4]]
    step = layers.step
    ticks = 4000
    wrong_size = step(plain) | {"size": 1}
    no_tokens = step(plain) | {"registers": [0, *step(plain)["registers"][1:]]}
    script = [
        ({"specials": values}, 0),
        (step(plain), 0),
        (step(plain, datatypes=1 << 12), 5),
        (step(half, fault="full"), 0),
        ({"specials": [7, *values[1:]]}, 7),
        (no_tokens, 3),
        (wrong_size, -2),
        (step(plain, fault="send"), -3),
        (step(plain), 0),
        (step(plain, fault="poll"), -3),
        (step(half), 0),
        (step(infinite), 14),
        (step(plain, ticks, fault="hold"), -4),
        (step(plain), 0),
        (step(plain, ticks, fault="deaf"), -4),
        (step(half), 0),
        (step(plain, ticks, fault="stuck"), 0),
        (step(plain, 30, fault="stuck"), -5),
    ]
    options = {"library": str(library), "steps": [step for step, _ in script], "sleeps": sleeps}
    ran = run(build_core(config), "verif.core.tb_driver", vectors=layers.vectors, options=options, seed=seed)
    assert ran.data["device"].tolist() == [getattr(device_of(config), name) for name, _ in Device._fields_[1:]]
    assert ran.data["codes"].tolist() == [0, *(code for _, code in script)]
    driver, device = load_driver(library), device_of(config)
    for number, (entry, code) in enumerate(script):
        if "job" not in entry or code not in (0, 14):
            continue
        registers, wanted, model = layers.jobs[entry["job"]]
        results = ran.data[f"{number}.results"]
        assert results.tobytes() == wanted.tobytes(), f"step {number}"
        tokens, inputs, outputs, _, fp16, _ = registers
        found, job = results.view("<u2" if fp16 else "<u4"), Job(*registers)
        places = [[driver.bitmosaic_result(ctypes.byref(device), ctypes.byref(job), token, output)
                   for output in range(outputs)] for token in range(tokens)]  # fmt: skip
        assert (found[np.array(places)] == model.result.bits).all()
        cycles, busy, _, macs, errors, flags, _ = ran.data[f"{number}.counters"].tolist()
        assert macs == tokens * inputs * outputs
        assert 0 < busy < cycles
        assert errors == len(model.errors)
        assert flags == (code and 1 << code - 1)


def test_fusesoc_file_names_what_is_there():
    text = (ROOT / "bitmosaic.core").read_text()
    assert text.startswith("CAPI=2:\n")
    assert "core" in [top.name for top in tops("dense")]
    for name in re.findall(r"- (sim/\S+)", text):
        assert (ROOT / name).is_file(), name
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert f"name: ::bitmosaic:{version.split(chr(34))[1]}\n" in text
    page = (DOCS / "integration.md").read_text()
    commands = re.findall(r"^fusesoc --cores-root \. run --target=(\S+) (\S+)", page, re.M)
    assert [target for target, _ in commands] == re.findall(r"^  (?!default)(\w+):\n    <<:", text, re.M)
    assert {name for _, name in commands} == {f"::bitmosaic:{version.split(chr(34))[1]}"}


@pytest.mark.sim
@pytest.mark.parametrize("target", ["lint", "sim", "ecp5"])
def test_fusesoc_runs_the_targets(tmp_path, target):
    """As written in the document; the FPGA target as far as its project files."""
    needed = {"lint": "fusesoc", "sim": "iverilog"}.get(target, "fusesoc")
    for tool in {"fusesoc", needed}:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH: python -m pip install fusesoc==2.4.7, apt install iverilog")
    (tmp_path / "sim").mkdir()
    for name in ("bitmosaic.core", "sim/smoke.v", "sim/bitmosaic.vlt"):
        shutil.copy(ROOT / name, tmp_path / name)
    emit_tops([top for top in tops("tiny") if top.name == "core"], tmp_path / "build" / "verilog")
    command = ["fusesoc", "--cores-root", ".", "run", *["--setup"] * (target == "ecp5"), f"--target={target}"]
    command.append("::bitmosaic:0.1.0")
    done = subprocess.run(command, cwd=tmp_path, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if target == "sim":
        assert "PASS" in done.stdout
    if target == "ecp5":
        assert "synth_ecp5" in "".join(path.read_text() for path in tmp_path.rglob("ecp5/*.tcl"))
