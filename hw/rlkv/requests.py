"""OPEN and CLOSE of the KV address generator."""

from amaranth import Signal

from hw.rlkv.layouts import above
from spec.rlkv_transfers import RlkvError

__all__ = ["add_request_states"]


def add_request_states(m, generator):
    """The states of OPEN (pools taken over and checked, lists emptied) and of CLOSE (lists freed)."""
    config, op, taken, lists = generator.config, generator.op, generator.taken, generator.lists
    per_request = 2 * config.layers * config.heads
    index = Signal(range(config.lists + config.requests))
    left = Signal(range(per_request))
    m.d.comb += lists.index.eq(index)
    room = Signal()
    fits = Signal()
    top = 1 << config.address_bits
    ends = (
        taken.full_base + taken.full_areas * (2 * config.full_slots * config.token_bytes),
        taken.window_base + taken.window_areas * (2 * config.window_slots * config.token_bytes),
        taken.block_base + taken.blocks * config.block_bytes,
    )
    with m.State("POOLS"):
        with m.If(~generator.open.any()):
            m.d.sync += taken.eq(generator.pools)
        m.next = "LIMITS"
    with m.State("LIMITS"):
        m.d.sync += [
            fits.eq((ends[0] <= top) & (ends[1] <= top) & (ends[2] <= top) & ~above(taken.blocks, config.blocks)),
            room.eq(
                (generator.request_full + generator.policy.full <= taken.full_areas)
                & (
                    generator.request_window + (config.layers * config.heads - generator.policy.full)
                    <= taken.window_areas
                )
            ),
            index.eq(op.request),
            left.eq(per_request - 1),
        ]
        m.next = "OPEN"
    with m.State("OPEN"):
        with m.If(~generator.open.any() & ~fits):
            generator.fail(m, RlkvError.ADDRESS)
        with m.Else():
            m.d.comb += lists.restart.eq(~generator.open.any())
            with m.If(room):
                m.d.comb += generator.sequences.clear.eq(1)
                m.next = "EMPTY"
            with m.Else():
                generator.fail(m, RlkvError.AREAS)

    with m.State("EMPTY"):
        m.d.comb += lists.empty.eq(1)
        m.d.sync += [index.eq(index + config.requests), left.eq(left - 1)]
        with m.If(left == 0):
            m.d.sync += generator.open.bit_select(op.request, 1).eq(1)
            m.next = "DONE"
    with m.State("CLOSE"):
        m.d.sync += [index.eq(op.request), left.eq(per_request - 1)]
        m.next = "LOAD"
    with m.State("LOAD"):
        m.d.comb += lists.load.eq(1)
        m.next = "FREE"
    with m.State("FREE"):
        m.d.comb += lists.free.eq(1)
        m.d.sync += [index.eq(index + config.requests), left.eq(left - 1)]
        m.next = "LOAD"
        with m.If(left == 0):
            m.d.sync += generator.open.bit_select(op.request, 1).eq(0)
            m.next = "DONE"
