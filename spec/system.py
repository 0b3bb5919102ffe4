"""The named systems: everything that is generated for a preset, checked as a whole."""

from dataclasses import dataclass, field, replace

from spec import checks
from spec.attention import BUS_BYTES, AttentionConfig
from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.digits import DIGIT_SETS
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from spec.prealigned import PrealignedConfig
from spec.rlkv import RlkvConfig, rlkv_preset

__all__ = ["SYSTEMS", "System", "address_generators", "core_preset"]


@dataclass(frozen=True, kw_only=True)
class System:
    """What one design is made of; any part may be absent.

    Parameters
    ----------
    core : CoreConfig, optional
        The accelerator core.
    bit_serial : BitSerialConfig, optional
        BitMoD's PE and its parts, as tops of their own.
    kv_engines : dict of str to KvEngineConfig
        The KV engines by the names of their tops.
    attention : AttentionConfig, optional
        Score core and value core.
    address_generator : RlkvConfig, optional
        The KV address generator, for one model's cache.

    Raises
    ------
    TypeError, ValueError
        Naming the part: one head dim for engines, attention and the address generator's slots.
    """

    core: CoreConfig | None = None
    bit_serial: BitSerialConfig | None = None
    kv_engines: dict[str, KvEngineConfig] = field(default_factory=dict)
    attention: AttentionConfig | None = None
    address_generator: RlkvConfig | None = None

    def __post_init__(self):
        parts = {"core": CoreConfig, "bit_serial": BitSerialConfig, "attention": AttentionConfig}
        for name, kind in (parts | {"address_generator": RlkvConfig}).items():
            checks.instance(name, getattr(self, name), kind, type(None))
        for name, engine in self.kv_engines.items():
            checks.instance(f"kv_engines[{name!r}]", engine, KvEngineConfig)
            if self.attention is not None:
                checks.choice(f"max_channels of {name}", engine.max_channels, (self.attention.channels,))
        if self.attention is not None and self.address_generator is not None:
            slot = self.attention.token_bytes(self.attention.channels)
            checks.whole("token_bytes of address_generator", self.address_generator.token_bytes, slot)
            checks.choice("beat_bytes of address_generator", self.address_generator.beat_bytes, (BUS_BYTES,))


_BOTH = frozenset({KvTransform.WHT, KvTransform.RFFT})

SYSTEMS = {
    "paper": System(
        core=CoreConfig(drain_chains=1, datapath=BitSerialConfig()),
        bit_serial=BitSerialConfig(),
        kv_engines={
            "kv_dequantizer_axi": KvEngineConfig(),
            # VidKV's own transform, at the rate of its one butterfly pipeline, and its FP16 metadata.
            "kv_dequantizer_rfft_axi": KvEngineConfig(lanes=4, transforms=_BOTH, scale_bits=11),
        },
        attention=AttentionConfig(channels=128, minima=True, transforms=_BOTH),
        address_generator=rlkv_preset("llama-3.1-8b"),
    ),
    "tiny": System(
        core=CoreConfig(
            rows=2,
            columns=2,
            drain_chains=1,
            datapath=PrealignedConfig(lanes=4, group_size=32),
            chunk=64,
            block_outputs=8,
            result_lanes=1,
        ),
        bit_serial=BitSerialConfig(group_size=32),
        # Whoever wants whole keys: in channel order, and with their centre.
        kv_engines={"kv_dequantizer_axi": KvEngineConfig(lanes=4, max_channels=64, interleave=True, centre=True)},
        attention=AttentionConfig(minima=True, transforms=_BOTH),
        address_generator=rlkv_preset("tiny"),
    ),
    "dense": System(core=CoreConfig()),
    "edge": System(
        core=CoreConfig(
            rows=4,
            columns=4,
            token_sets=1,
            drain_chains=1,
            datapath=PrealignedConfig(lanes=8),
            chunk=256,
            block_outputs=64,
            result_lanes=1,
        )
    ),
    "dense-fp4": System(core=CoreConfig(datapath=PrealignedConfig(digits=DIGIT_SETS["radix8-fp4"]))),
    "precise": System(core=CoreConfig(datapath=PrealignedConfig(activation_bits=19))),
}
"""``paper``: 8 x 8 of BitMoD's bit-serial PEs, 4 lanes, with everything for the cache of Llama-3.1-8B; ``tiny``: for
fast tests, every loop with few iterations; ``dense``: 8 x 8 PEs of 16 lanes, FP3 and INT3 in one step, FP4, INT4, INT5
and INT6 in two, INT8 in three; ``edge``: small; ``dense-fp4``: FP4 in one step, too; ``precise``: ``dense`` at the
smallest W whose error is nowhere above that of ``BitSerialPE`` with ``trunc``, neither median nor maximum, outliers
x 100 and real activations included (docs/prealigned-error.md)."""


def core_preset(name: str, **changes) -> CoreConfig:
    """The core of the named system, with ``changes`` applied. Raises ValueError for an unknown name."""
    return replace(checks.named("preset", name, SYSTEMS).core, **changes)


def address_generators() -> dict[str, RlkvConfig]:
    """The address generators of the systems that have one, by the systems' names."""
    return {name: system.address_generator for name, system in SYSTEMS.items() if system.address_generator}
