"""What a cache of full and window heads takes: bytes per sequence, the pools in memory, and their budgets."""

from dataclasses import dataclass

from golden.kv.config import CacheFormat
from golden.kv.grouping import token_groups
from golden.kv.headers import key_header, value_header
from golden.rlkv.address_model import packed_end
from spec import checks
from spec.kv_block import ALIGN_BYTES
from spec.rlkv import RlkvConfig, RlkvPools
from spec.rlkv_transfers import KvPart

__all__ = ["Budget", "CacheShape", "MemoryPlan", "budget_sglang", "bytes_per_sequence", "kv_bytes_rlkv"]


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """KV heads of a model: ``layers`` x ``heads`` of ``head_dim`` channels."""

    layers: int
    heads: int
    head_dim: int

    def __post_init__(self):
        for name in ("layers", "heads", "head_dim"):
            checks.whole(name, getattr(self, name), 1)

    @property
    def total(self) -> int:
        return self.layers * self.heads


def kv_bytes_rlkv(shape: CacheShape, n_full: int, tokens: int, *, window: int = 80, element_bytes: int = 2) -> int:
    """RLKV's own count, nothing packed: 2 d b (N_full L + N_window min(L, W))."""
    checks.whole("n_full", n_full, 0, shape.total)
    checks.whole("tokens", tokens, 0)
    checks.whole("window", window, 1)
    held = n_full * tokens + (shape.total - n_full) * min(tokens, window)
    return 2 * shape.head_dim * element_bytes * held


@dataclass(frozen=True)
class Budget:
    """SGLang's split of a cache memory; ``exceeded``: the pools together are larger than that memory."""

    full_tokens: int
    exceeded: bool


def budget_sglang(uniform_tokens: int, shape: CacheShape, n_full: int, *, requests: int, window: int = 80) -> Budget:
    """Tokens in the full pool, RLKV's fork of SGLang: max((T0 H - R W H_comp) // H_full, T0).

    ``uniform_tokens`` T0 is what fits with every head full. The floor at T0 can ask for more memory than there is.
    """
    checks.whole("uniform_tokens", uniform_tokens, 0)
    checks.whole("n_full", n_full, 1, shape.total)
    checks.whole("requests", requests, 1)
    checks.whole("window", window, 1)
    compressed = requests * window * (shape.total - n_full)
    there = uniform_tokens * shape.total
    full = max((there - compressed) // n_full, uniform_tokens)
    return Budget(full, full * n_full + compressed > there)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The three pools of this design for one model, cache format and number of full heads.

    Parameters
    ----------
    config : RlkvConfig
        Its slot and block sizes must hold the format's.
    head_dim : int
    fmt : CacheFormat
        Of the packed blocks, without protected tokens, whose blocks depend on the data.
    n_full : int
        Full heads, all layers together.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    config: RlkvConfig
    head_dim: int
    fmt: CacheFormat
    n_full: int

    def __post_init__(self):
        config, fmt = self.config, self.fmt
        checks.whole("n_full", self.n_full, 0, config.layers * config.heads)
        for part, side in (("key", fmt.key), ("value", fmt.value)):
            if side.group != config.block_tokens:
                raise ValueError(f"{part} group must be block_tokens={config.block_tokens}, not {side.group}")
        if (fmt.sinks, fmt.recent) != (config.sink, config.residual):
            raise ValueError(
                f"sinks and recent of the format must be sink={config.sink} and residual={config.residual}, "
                f"not {fmt.sinks} and {fmt.recent}"
            )
        if fmt.value.protected:
            raise ValueError(f"protected must be 0, not {fmt.value.protected}")
        largest = max(self._packet(part, range(config.block_tokens)) for part in KvPart)
        if config.block_bytes < largest:
            raise ValueError(f"block_bytes must be at least {largest}, not {config.block_bytes}")

    @property
    def n_window(self) -> int:
        return self.config.layers * self.config.heads - self.n_full

    def _packet(self, part: KvPart, tokens) -> int:
        """Bytes of a block of these positions."""
        side = self.fmt.key if part == KvPart.KEY else self.fmt.value
        if side.code == "fp16":
            return -(-2 * self.head_dim * len(tokens) // ALIGN_BYTES) * ALIGN_BYTES
        header = key_header if part == KvPart.KEY else value_header
        return header(side, self.head_dim, tokens).packet_bytes

    def block_bytes(self, part: KvPart, tokens: int) -> list[int]:
        """Bytes of each block of one full head whose sequence has ``tokens`` tokens, headers and padding included."""
        config = self.config
        groups = token_groups(config.sink, packed_end(config, tokens), config.block_tokens)
        return [-(-self._packet(part, g.tokens) // config.beat_bytes) * config.beat_bytes for g in groups]

    def read_bytes(self, tokens: int, *, full: bool) -> int:
        """Bytes of keys and values that one head's attention reads for one new token of a sequence of ``tokens``."""
        checks.whole("tokens", tokens, 1, self.config.context)
        config = self.config
        if not full:
            oldest = max(config.sink, tokens - config.recent)
            return 2 * self._exact_bytes(tokens, oldest, config.recent)
        exact = self._exact_bytes(tokens, packed_end(config, tokens), config.residual_slots)
        return 2 * exact + sum(sum(self.block_bytes(part, tokens)) for part in KvPart)

    def _exact_bytes(self, tokens: int, oldest: int, ring: int) -> int:
        """Sinks, and a ring from position ``oldest`` on: up to three runs of slots, each of whole beats (A1, A2)."""
        config = self.config
        count = max(0, tokens - oldest)
        before_wrap = min(count, ring - (oldest - config.sink) % ring)
        runs = (min(tokens, config.sink), before_wrap, count - before_wrap)
        return sum(config.run_beats(run) for run in runs) * config.beat_bytes

    def read_bytes_per_token(self, tokens: int) -> int:
        """The same over all layers and KV heads, each read once whatever the number of query heads."""
        full = self.read_bytes(tokens, full=True) if self.n_full else 0
        return self.n_full * full + self.n_window * self.read_bytes(tokens, full=False)

    def blocks(self, tokens: int) -> int:
        """Blocks of the pool that one sequence occupies."""
        return self.n_full * sum(len(self.block_bytes(part, tokens)) for part in KvPart)

    def reserved_bytes(self, tokens: int, requests: int = 1) -> int:
        """Memory for ``requests`` sequences of ``tokens`` tokens: areas at their full size, blocks at their slots'."""
        config = self.config
        slots = self.n_full * config.full_slots + self.n_window * config.window_slots
        return requests * (2 * slots * config.token_bytes + self.blocks(tokens) * config.block_bytes)

    def longest_context(self, memory_bytes: int, requests: int = 1) -> int:
        """Most tokens that each of ``requests`` sequences can reach in that memory, 0 if not even the areas fit.

        Never more than there is memory for: the areas come first, what is left is blocks.
        """
        checks.whole("memory_bytes", memory_bytes, 0)
        checks.whole("requests", requests, 1, self.config.requests)
        low, high = 0, self.config.context
        if self.reserved_bytes(0, requests) > memory_bytes:
            return 0
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.reserved_bytes(middle, requests) <= memory_bytes
            fits = fits and requests * self.blocks(middle) <= self.config.blocks
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def pools(self, tokens: int, requests: int = 1, base: int = 0) -> RlkvPools:
        """The pools back to back from ``base``. Raises ValueError if they do not fit in the address space."""
        config = self.config
        checks.whole("tokens", tokens, 0, config.context)
        checks.whole("requests", requests, 1, config.requests)
        full, window = requests * self.n_full, requests * self.n_window
        window_base = base + config.whole_beats(2 * full * config.full_slots * config.token_bytes)
        pools = RlkvPools(
            full_base=base,
            full_areas=full,
            window_base=window_base,
            window_areas=window,
            block_base=window_base + config.whole_beats(2 * window * config.window_slots * config.token_bytes),
            blocks=requests * self.blocks(tokens),
        )
        pools.check(config)
        return pools


def bytes_per_sequence(plan: MemoryPlan, tokens: int) -> int:
    """Bytes that a sequence of ``tokens`` tokens stores: what its attention reads, every block and token once."""
    return plan.read_bytes_per_token(tokens)
