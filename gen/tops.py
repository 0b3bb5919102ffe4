"""The components that are emitted as Verilog tops, for each preset."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from amaranth.lib.wiring import Component

from hw.arith.fp32_adder import Fp32Adder
from hw.bitserial.decoder import TermDecoder
from hw.bitserial.dequantizer import BitSerialDequantizer, RescaledPE
from hw.bitserial.pe import BitSerialPE
from hw.bitserial.unpacker import RowUnpacker
from hw.prealigned.pe import PrealignedPE
from hw.rlkv.layouts import CommandLayout, OperationLayout
from hw.tops.address_generator import KvAddressGeneratorAxi, field_positions
from hw.tops.core import AcceleratorCoreAxi
from hw.tops.kv_dequantizer import KvDequantizerAxi
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from spec import checks
from spec.attention import AttentionConfig
from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.kv_config import KvEngineConfig
from spec.prealigned import PrealignedConfig
from spec.rlkv import RlkvConfig
from spec.system import SYSTEMS

__all__ = [
    "Top",
    "address_generator_parameters",
    "attention_parameters",
    "core_parameters",
    "kv_parameters",
    "tops",
]


@dataclass(frozen=True, kw_only=True)
class Top:
    """A component to emit. Its ``latency`` attribute, where it has one, goes into the sidecar.

    Parameters
    ----------
    name : str
        Name of the Verilog module and its files.
    component : callable
        Makes a new component.
    parameters : dict
        What it was made from, for the sidecar.
    on_request : bool
        Synthesized only when named: an array whose parts are tops, too, and which takes as long as all of them.
    """

    name: str
    component: Callable[[], Component]
    parameters: dict[str, Any] = field(default_factory=dict)
    on_request: bool = False


def kv_parameters(engine: KvEngineConfig) -> dict[str, Any]:
    """An engine's parameters as the sidecar holds them: transforms and formats by name."""
    names = {key: [code.name for code in sorted(getattr(engine, key))] for key in ("transforms", "formats")}
    return asdict(engine) | names


def attention_parameters(attention: AttentionConfig) -> dict[str, Any]:
    """An attention core's parameters as the sidecar holds them: transforms by name."""
    return asdict(attention) | {"transforms": [transform.name for transform in sorted(attention.transforms)]}


def address_generator_parameters(generator: RlkvConfig) -> dict[str, Any]:
    """A generator's parameters as the sidecar holds them, with the places of all fields in its streams' TDATA."""
    fields = {"operation": OperationLayout(generator), "command": CommandLayout(generator)}
    return asdict(generator) | {f"{name}_fields": field_positions(layout) for name, layout in fields.items()}


def core_parameters(core: CoreConfig) -> dict[str, Any]:
    """A core's parameters as the sidecar holds them: datatypes by name, digits as their multiples."""
    datapath = asdict(core.datapath) | {"datatypes": [datatype.name for datatype in core.datapath.datatypes]}
    if isinstance(core.datapath, PrealignedConfig):
        datapath["digits"] = list(core.datapath.digits.multiples)
    return asdict(core) | {"datapath": datapath}


def tops(preset: str) -> list[Top]:
    """The tops of a preset, integrated ones first. Raises ValueError for an unknown preset, naming the known."""
    system = checks.named("preset", preset, SYSTEMS)
    found = core_tops(system.core) if system.core else []
    found += bit_serial_tops(system.bit_serial) if system.bit_serial else []
    for name, engine in system.kv_engines.items():
        found.append(Top(name=name, component=partial(KvDequantizerAxi, engine), parameters=kv_parameters(engine)))
    if attention := system.attention:
        parameters = attention_parameters(attention)
        for name, component in (("score_core_axi", ScoreCoreAxi), ("value_core_axi", ValueCoreAxi)):
            found.append(Top(name=name, component=partial(component, attention), parameters=parameters))
    if generator := system.address_generator:
        component, parameters = partial(KvAddressGeneratorAxi, generator), address_generator_parameters(generator)
        found.append(Top(name="kv_address_generator_axi", component=component, parameters=parameters))
    return found


def core_tops(core: CoreConfig) -> list[Top]:
    """The accelerator core, and its PE unless that is one of BitMoD's."""
    parameters = core_parameters(core)
    prealigned = isinstance(core.datapath, PrealignedConfig)
    component = partial(AcceleratorCoreAxi, core)
    found = [Top(name="core", component=component, parameters=parameters, on_request=not prealigned)]
    if prealigned:
        pe = partial(PrealignedPE, core.datapath)
        found.append(Top(name="prealigned_pe", component=pe, parameters=parameters["datapath"]))
    return found


def bit_serial_tops(config: BitSerialConfig) -> list[Top]:
    """BitMoD's PE, and what goes into it or follows it. The scaling factor is taken bit by bit, as BitMoD does."""
    pe = {name: getattr(config, name) for name in ("lanes", "rounding", "accumulator_bits")}
    width = {"accumulator_bits": config.accumulator_bits}
    decoder = {"lanes": config.lanes, "signed_special_terms": config.signed_special_terms}
    return [
        Top(name=name, component=partial(component, **parameters), parameters=parameters)
        for name, component, parameters in (
            ("rescaled_pe", RescaledPE, pe | {"digit_bits": 1}),
            ("bit_serial_pe", BitSerialPE, pe),
            ("bit_serial_dequantizer", BitSerialDequantizer, {"digit_bits": 1} | width),
            ("term_decoder", TermDecoder, decoder),
            ("row_unpacker", RowUnpacker, {"lanes": config.lanes}),
            ("fp32_adder", Fp32Adder, {}),
        )
    ]
