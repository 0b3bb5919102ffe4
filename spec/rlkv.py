"""KV cache of full and window heads (RLKV): configuration and pools.

Definitions and equations: docs/rlkv.md.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from spec import checks
from spec.kv_block import MAX_TOKENS, KvHeader
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = [
    "RLKV_PRESETS",
    "SLOT_UNIT",
    "RlkvConfig",
    "RlkvPools",
    "default_block_bytes",
    "exact_token_bytes",
    "rlkv_preset",
]


SLOT_UNIT = 4
"""Slots start and end at multiples of this many bytes."""


def exact_token_bytes(head_dim: int, kind: str = "int8", beat_bytes: int = 16) -> int:
    """Bytes of one token's key or value outside blocks: ``"int8"`` (D codes, their FP16 scale, and two bytes for the
    scale of the same token's value; to a multiple of 4, at least a beat) or ``"fp16"`` (whole beats)."""
    checks.whole("head_dim", head_dim, 1, 1024)
    checks.choice("kind", kind, ("int8", "fp16"))
    if kind == "int8":
        return max(beat_bytes, -(-(head_dim + 4) // SLOT_UNIT) * SLOT_UNIT)
    return -(-2 * head_dim // beat_bytes) * beat_bytes


def default_block_bytes(head_dim: int, block_tokens: int = 128) -> int:
    """Bytes of the larger of a key and a value block in the default formats (1.5-bit keys, ternary values)."""
    half = head_dim // 2
    wht = KvTransform.WHT
    common = {"channels": head_dim, "rows": block_tokens, "metadata": KvMetadata.F6}
    key = KvHeader(format=KvFormat.K2S, segment0=half, transform0=wht, transform1=wht, **common)
    return max(key.packet_bytes, KvHeader(format=KvFormat.V158, **common).packet_bytes)


@dataclass(frozen=True, kw_only=True)
class RlkvConfig:
    """Generation parameters of the policy table and the KV address generator.

    Parameters
    ----------
    layers, heads : int
        Shape of the policy table: 1..256 layers of 1..64 KV heads.
    group : int
        Query heads per KV head, 1..8.
    requests : int
        Sequences that can be open at a time, 1..16.
    sink : int
        First tokens, kept exact in every head, 0..255 and less than ``block_tokens``.
    recent : int
        Newest tokens of a window head, the current one included, 1..4096.
    residual : int
        Newest tokens of a full head that are never packed, 0..4096.
    block_tokens : int
        Tokens of a block: 32, 64 or 128. Blocks end at multiples of it.
    token_bytes : int
        Key or value of one token outside blocks (:func:`exact_token_bytes`), a multiple of 4.
    block_bytes : int
        Room for one block, key or value, in the block pool; whole beats.
    blocks : int
        Most blocks that a pool can have, 1..2**20.
    context : int
        Longest sequence in tokens, up to 2**20.
    beat_bytes : int
        Unit of lengths and of all addresses but slots': 8, 16, 32 or 64.
    address_bits : int
        Width of byte addresses, 16..64.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    layers: int = 32
    heads: int = 8
    group: int = 4
    requests: int = 4
    sink: int = 16
    recent: int = 64
    residual: int = 128
    block_tokens: int = 128
    token_bytes: int = exact_token_bytes(128)
    block_bytes: int = default_block_bytes(128)
    blocks: int = 1 << 17
    context: int = 1 << 17
    beat_bytes: int = 16
    address_bits: int = 40

    def __post_init__(self):
        checks.whole("layers", self.layers, 1, 256)
        checks.whole("heads", self.heads, 1, 64)
        checks.whole("group", self.group, 1, 8)
        checks.whole("requests", self.requests, 1, 16)
        checks.choice("block_tokens", self.block_tokens, (32, 64, 128))
        checks.whole("sink", self.sink, 0, min(255, self.block_tokens - 1))
        checks.whole("recent", self.recent, 1, 4096)
        checks.whole("residual", self.residual, 0, 4096)
        checks.choice("beat_bytes", self.beat_bytes, (8, 16, 32, 64))
        checks.whole("token_bytes", self.token_bytes, self.beat_bytes, 1 << 12, SLOT_UNIT)
        checks.whole("block_bytes", self.block_bytes, self.beat_bytes, 1 << 18, self.beat_bytes)
        checks.whole("blocks", self.blocks, 1, 1 << 20)
        checks.whole("context", self.context, 1, MAX_TOKENS)
        checks.whole("address_bits", self.address_bits, 16, 64)

    def run_beats(self, tokens: int) -> int:
        """Beats of a run of slots, the last one filled up."""
        return -(-tokens * self.token_bytes // self.beat_bytes)

    def whole_beats(self, size: int) -> int:
        """Bytes up to the next multiple of a beat."""
        return -(-size // self.beat_bytes) * self.beat_bytes

    @property
    def block_beats(self) -> int:
        return self.block_bytes // self.beat_bytes

    @property
    def residual_slots(self) -> int:
        """Ring of a full head: the residual, and a block's worth of tokens that are not due for packing yet."""
        return self.residual + self.block_tokens

    @property
    def full_slots(self) -> int:
        """Token slots of a full head's area, keys or values."""
        return self.sink + self.residual_slots

    @property
    def window_slots(self) -> int:
        """Token slots of a window head's area, keys or values."""
        return self.sink + self.recent

    @property
    def query_heads(self) -> int:
        return self.heads * self.group

    @property
    def areas(self) -> int:
        """Areas of all open requests together, full and window."""
        return self.requests * self.layers * self.heads

    @property
    def lists(self) -> int:
        """Block lists: one per request, layer, head and part."""
        return 2 * self.areas


@dataclass(frozen=True, kw_only=True)
class RlkvPools:
    """Where the three pools lie: byte addresses, and how many areas or blocks each holds.

    Every request takes N_full full areas and N_window window areas; an area is the slots of one head's keys, then of
    its values. Overlaps are refused here; the hardware checks the rest again, from its ports.
    """

    full_base: int
    full_areas: int
    window_base: int
    window_areas: int
    block_base: int
    blocks: int

    def regions(self, config: RlkvConfig) -> dict[str, tuple[int, int]]:
        """Name of each pool -> its first byte and its length."""
        return {
            "full": (self.full_base, 2 * self.full_areas * config.full_slots * config.token_bytes),
            "window": (self.window_base, 2 * self.window_areas * config.window_slots * config.token_bytes),
            "block": (self.block_base, self.blocks * config.block_bytes),
        }

    def fits(self, config: RlkvConfig) -> bool:
        """What the hardware checks: all pools end within the address space, and this build has that many blocks."""
        ends = [base + size for base, size in self.regions(config).values()]
        return max(ends) <= 1 << config.address_bits and self.blocks <= config.blocks

    def check(self, config: RlkvConfig) -> None:
        """Raise ValueError, naming the pool, unless all pools are aligned, fit and do not overlap."""
        top = 1 << config.address_bits
        for name in ("full_areas", "window_areas"):
            checks.whole(name, getattr(self, name), 0, config.areas)
        checks.whole("blocks", self.blocks, 0, config.blocks)
        regions = sorted(self.regions(config).items(), key=lambda item: item[1])
        for name, (base, size) in regions:
            checks.whole(f"{name}_base", base, 0, top - 1, config.beat_bytes)
            if base + size > top:
                raise ValueError(
                    f"{name} pool must end within {config.address_bits} address bits, not at {base + size:#x}"
                )
        filled = [(name, base, size) for name, (base, size) in regions if size]
        for (name, base, size), (after, start, _) in pairwise(filled):
            if base + size > start:
                raise ValueError(f"{after}_base must be at least {base + size:#x}, where the {name} pool ends, "
                                 f"not {start:#x}")  # fmt: skip


_SMALL = {"token_bytes": exact_token_bytes(64), "block_bytes": default_block_bytes(64)}
RLKV_PRESETS = {
    "llama-3.1-8b": RlkvConfig(),
    "qwen-2.5-7b": RlkvConfig(layers=28, heads=4, group=7),
    "qwen-3-4b": RlkvConfig(layers=36, heads=8, group=4),
    "smollm2-135m": RlkvConfig(layers=30, heads=3, group=3, blocks=1 << 13, context=1 << 13, address_bits=32, **_SMALL),
    "tiny": RlkvConfig(
        layers=3, heads=2, group=2, requests=2, sink=4, recent=8, residual=16, block_tokens=32,
        token_bytes=68, block_bytes=1024, blocks=1 << 8, context=1 << 10, address_bits=20,
    ),
}  # fmt: skip


def rlkv_preset(name: str, **changes) -> RlkvConfig:
    """The named preset, with ``changes`` applied. Raises ValueError for an unknown name, naming the known ones."""
    return replace(checks.named("preset", name, RLKV_PRESETS), **changes)
