"""The two kinds of datapath: which blocks a core is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from amaranth import signed
from amaranth.lib import data, wiring

from hw.arith.formats import FP16
from hw.bitserial.datapath import (
    DrainedPE,
    RawActivations,
    RawMultiples,
    SerialDequantizer,
    StepDecoder,
    TermControl,
    TermStep,
)
from hw.bitserial.pe import PartialSum
from hw.prealigned.aligner import ActivationAligner
from hw.prealigned.decoder import DigitDecoder
from hw.prealigned.dequantizer import GroupDequantizer
from hw.prealigned.digits import allowed_specials, steps
from hw.prealigned.multiples import OddMultiples
from hw.prealigned.pe import Control, DigitBeat, MultipleBeat, PrealignedPE, RedundantSum
from spec.bitserial import BitSerialConfig
from spec.datatypes import FLOATS, SPECIAL_LIMIT, Datatype, special_value_allowed
from spec.prealigned import PrealignedConfig

__all__ = ["Parts", "parts"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What differs between the kinds. Blocks of one role have the same members, but for these layouts.

    Attributes
    ----------
    aligner : callable
        Makes what prepares a stream of activation groups for the chunk memories.
    multiples, decoder, pe, dequantizer : callable
        Make what comes behind a chunk memory, behind a code memory, the PE, what comes behind a drain chain.
    multiples_latency, decoder_latency, dequantizer_latency : int
    activations, multiple, digits, control, sum : ShapeLike
        Of a beat in the chunk memory, of the PE's inputs, of its sum.
    planes : callable
        Datatype to steps per beat.
    plane_major : bool
        A group runs through all of its beats for each plane; else through all planes for each beat.
    specials : dict of Datatype to tuple of int
        What special values may be.
    """

    aligner: Callable[[], wiring.Component]
    multiples: Callable[[], wiring.Component]
    decoder: Callable[[], wiring.Component]
    pe: Callable[[], wiring.Component]
    dequantizer: Callable[[], wiring.Component]
    multiples_latency: int
    decoder_latency: int
    dequantizer_latency: int
    activations: data.Layout
    multiple: data.Layout
    digits: data.Layout
    control: type[data.Struct]
    sum: data.Layout
    planes: Callable[[Datatype], int]
    plane_major: bool
    specials: dict[Datatype, tuple[int, ...]]


@cache
def parts(config: PrealignedConfig | BitSerialConfig) -> Parts:
    """The blocks of a datapath of this configuration."""
    return _bit_serial(config) if isinstance(config, BitSerialConfig) else _prealigned(config)


def _prealigned(config: PrealignedConfig) -> Parts:
    return Parts(
        aligner=lambda: ActivationAligner(config.lanes, config.activation_bits, config.group_size),
        multiples=lambda: OddMultiples(config),
        decoder=lambda: DigitDecoder(config),
        pe=lambda: PrealignedPE(config),
        dequantizer=lambda: GroupDequantizer(config),
        multiples_latency=OddMultiples.latency,
        decoder_latency=DigitDecoder.latency,
        dequantizer_latency=GroupDequantizer.latency,
        activations=data.ArrayLayout(signed(config.activation_bits), config.lanes),
        multiple=MultipleBeat(config),
        digits=DigitBeat(config.digits, config.lanes),
        control=Control,
        sum=RedundantSum(config.accumulator_bits),
        planes=lambda datatype: steps(datatype, config.digits),
        plane_major=True,
        specials={d: tuple(sorted(allowed_specials(d, config.digits))) for d in FLOATS},
    )


def _bit_serial(config: BitSerialConfig) -> Parts:
    limit = range(-SPECIAL_LIMIT, SPECIAL_LIMIT + 1)
    special = tuple(v for v in limit if special_value_allowed(v, signed_terms=config.signed_special_terms))
    return Parts(
        aligner=lambda: RawActivations(config),
        multiples=lambda: RawMultiples(config),
        decoder=lambda: StepDecoder(config),
        pe=lambda: DrainedPE(config),
        dequantizer=lambda: SerialDequantizer(config),
        multiples_latency=RawMultiples.latency,
        decoder_latency=StepDecoder.latency,
        dequantizer_latency=SerialDequantizer.latency,
        activations=data.ArrayLayout(16, config.lanes),
        multiple=data.ArrayLayout(FP16, config.lanes),
        digits=TermStep(config.lanes),
        control=TermControl,
        sum=PartialSum(config.accumulator_bits),
        planes=lambda datatype: datatype.terms,
        plane_major=False,
        specials=dict.fromkeys(FLOATS, special),
    )
