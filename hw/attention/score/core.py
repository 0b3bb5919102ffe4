"""Scores straight from packed key codes: one query against a list of blocks and runs of exact tokens."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from hw.attention.core import AttentionCore, add_queue
from hw.attention.layouts import Layout, QueryElement, Score
from hw.attention.score.dot import DotArray
from hw.attention.score.fold import FoldUnit
from hw.attention.score.query import QueryUnit
from hw.attention.score.results import ScoreOut
from hw.attention.score.rows import ScoreRows
from spec.attention import AttentionConfig, AttentionError
from spec.kv_config import KvError

__all__ = ["ScoreCore"]

ROWS_DEPTH = 64
"""Beats of rows that wait while the next block's scales are folded: its about 90 cycles of rows."""
WORDS_DEPTH = 16


class ScoreCore(AttentionCore):
    """q . k of every token of a list, from its codes (docs/attention.md).

    ```
    layout, query -> QueryUnit --+
    i -> PacketFront -+- entries, words -> FoldUnit -> tables -+
                      +- rows --[queue]-> ScoreRows -> DotArray -> ScoreOut -> o
    ```

    A packed row of up to 64 channels takes a cycle, an exact one four, a digit plane each (and every fourth token one
    more: four slots of 64 channels are 17 beats); from 72 channels on twice as many. Between packets pass 2 cycles (3
    after exact tokens), if the next one's prefix came 90 cycles before: the fold works while rows are multiplied.

    K1 and K2S, with ``wht`` or without, and K2 in builds with minima; other formats are refused with FORMAT.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    layout : stream of Layout, In
    query : stream of QueryElement, In
    i : stream of PacketBeat, In
    o : stream of Score, Out
    error, error_count, error_clear, busy
        Of :class:`hw.attention.core.AttentionCore`; bad packets are counted.
    """

    def __init__(self, config: AttentionConfig):
        inputs = {"layout": In(stream.Signature(Layout)), "query": In(stream.Signature(QueryElement))}
        super().__init__(config, inputs, Score)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        front, log = self.add_frame(m)
        m.submodules.query_unit = query = QueryUnit(config)
        m.submodules.fold = fold = FoldUnit(config)
        m.submodules.rows = rows = ScoreRows(config)
        m.submodules.array = array = DotArray(config)
        m.submodules.out = out = ScoreOut(config)
        wiring.connect(m, wiring.flipped(self.layout), query.layout)
        wiring.connect(m, wiring.flipped(self.query), query.i)
        add_queue(m, "entry_queue", front.entries, fold.entries, 3)
        add_queue(m, "word_queue", front.words, fold.words, WORDS_DEPTH)
        add_queue(m, "row_queue", front.rows, rows.rows, ROWS_DEPTH)
        wiring.connect(m, query.held, fold.query)
        wiring.connect(m, fold.tables, array.tables)
        wiring.connect(m, fold.jobs, rows.jobs)
        wiring.connect(m, rows.steps, array.steps)
        wiring.connect(m, rows.requests, out.requests)
        wiring.connect(m, out.o, wiring.flipped(self.o))
        m.d.comb += [
            out.sums.eq(array.o),
            self.busy.eq(rows.steps.step),
            log.code.eq(rows.error),
            log.strobe.eq(rows.error_strobe),
            log.late.eq(Mux(out.bad_scale, KvError.SCALE, AttentionError.QUERY)),
            log.late_strobe.eq(out.bad_scale | query.bad),
        ]
        return m
