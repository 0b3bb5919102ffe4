"""A decoding step and the cycles that either route of attention takes for it; tests hold them against simulations."""

from dataclasses import dataclass
from itertools import pairwise

from spec.attention import BUS_BYTES, LANES, PLANES, AttentionConfig
from spec.rlkv import exact_token_bytes

__all__ = ["EXACT_ROWS", "SCORE_BETWEEN", "Workload", "array_busy", "baseline_cycles", "score_cycles", "value_cycles"]

SCORE_BETWEEN = 2
"""Cycles between packets of `ScoreCore`."""
VALUE_BETWEEN = 1
"""Cycles between packets of `ValueCore`; none pass between the groups of a run of exact tokens."""
EXACT_ROWS = 32
"""Rows of a group of exact tokens; their weights come in as slowly as their rows, so longer groups would wait."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One decoding step of a full head at the default formats.

    Attributes
    ----------
    tokens, head_dim : int
    sinks, recent, group : int
        Exact tokens at the start and at the end; tokens of a block.
    """

    tokens: int = 1024
    head_dim: int = 64
    sinks: int = 16
    recent: int = 128
    group: int = 128

    @property
    def blocks(self) -> list[int]:
        """Rows of each packed block (docs/rlkv.md, K1)."""
        end = max(self.sinks, self.group * (max(0, self.tokens - self.recent) // self.group))
        edges = [self.sinks, *range(self.group, end + 1, self.group)]
        return [stop - start for start, stop in pairwise(edges) if stop > start]

    @property
    def runs(self) -> list[int]:
        """Exact tokens: sinks, residual."""
        rest = self.tokens - self.sinks - sum(self.blocks)
        return [run for run in (min(self.sinks, self.tokens), rest) if run > 0]


def score_cycles(work: Workload, config: AttentionConfig) -> int:
    """Cycles that `ScoreCore` takes per list in the steady state, the next query transformed meanwhile."""
    del config
    steps = -(-work.head_dim // LANES)
    packed = sum(rows * steps + SCORE_BETWEEN for rows in work.blocks)
    return packed + sum(_exact_cycles(work, tokens) + SCORE_BETWEEN for tokens in work.runs)


def array_busy(work: Workload, config: AttentionConfig) -> float:
    """Share of `ScoreCore`'s cycles in which its array takes a step."""
    steps = -(-work.head_dim // LANES) * (sum(work.blocks) + PLANES * sum(work.runs))
    return steps / score_cycles(work, config)


def value_cycles(work: Workload, config: AttentionConfig) -> int:
    """Cycles that `ValueCore` takes per list in the steady state."""
    del config
    steps = -(-work.head_dim // LANES)
    packed = sum(rows * steps + VALUE_BETWEEN for rows in work.blocks)
    return packed + sum(_exact_cycles(work, tokens) + VALUE_BETWEEN for tokens in work.runs)


def _exact_cycles(work: Workload, tokens: int) -> int:
    """A run of exact tokens: a cycle per digit plane, or as long as its beats take."""
    steps = -(-work.head_dim // LANES)
    return max(tokens * PLANES * steps, run_beats(work, tokens))


def run_beats(work: Workload, tokens: int) -> int:
    """Beats of a run of exact tokens."""
    return -(-tokens * exact_token_bytes(work.head_dim, "int8", BUS_BYTES) // BUS_BYTES)


def baseline_cycles(work: Workload, lanes: int) -> int:
    """Cycles of either half of the dequantizing route. Its exact tokens come through a port as wide as the other's."""
    packed = sum(work.blocks) * -(-work.head_dim // lanes) + 2 * len(work.blocks)
    return packed + sum(max(run_beats(work, tokens), tokens * -(-work.head_dim // lanes)) for tokens in work.runs)
