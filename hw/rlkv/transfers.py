"""READ, WRITE and PACK of the KV address generator: the runs of slots and the blocks of each head."""

from amaranth import Mux, Signal

from hw.rlkv.layouts import above, run_slots
from hw.rlkv.policy import popcount
from spec.rlkv_transfers import CommandKind, RlkvError, RlkvOp

__all__ = ["add_transfer_states"]


def add_transfer_states(m, generator):
    """The states of READ, WRITE and PACK: head after head, its sinks, blocks and ring."""
    config, op, lists, run = generator.config, generator.op, generator.lists, generator.run.payload
    tokens, entry = generator.sequences.state.tokens, generator.lists.entry
    full = Signal()
    area = Signal(range(config.areas))
    base = Signal(range(run_slots(config)))  # slot in which the head's keys or values start
    before = Signal(range(config.layers * config.heads + 1))
    flat = Signal(range(config.layers * config.heads))
    lower = Signal(config.heads)
    is_full = generator.policy.mask.bit_select(generator.head, 1)
    m.d.comb += [
        lower.eq(generator.policy.mask & ((1 << generator.head) - 1)[: config.heads]),
        before.eq(generator.policy.before + popcount(lower)),
        flat.eq(op.layer * config.heads + generator.head),
    ]

    oldest = Signal.like(tokens)  # first token of the ring to transfer
    count = Signal(range(max(config.residual_slots, config.recent) + 1))
    size = Mux(full, config.residual_slots, config.recent)
    next_slot = Mux(full, generator.sequences.state.residual, generator.sequences.state.window)
    slot = Signal(range(max(config.residual_slots, config.recent)))
    split = Signal.like(count)
    m.d.comb += split.eq(Mux(count > size - slot, size - slot, count))
    sinks = Mux(tokens > config.sink, config.sink, tokens)

    node = Signal.like(lists.node)
    position = Signal.like(tokens)  # tokens before this block
    blocks_left = Signal.like(entry.blocks)
    walks = (op.op == RlkvOp.READ) & full & (entry.blocks != 0)
    due = config.sink + entry.tokens  # first token that is in no block
    m.d.comb += [lists.new.beats.eq(op.beats), lists.new.rows.eq(op.count)]
    m.d.comb += [lists.node.eq(lists.next), run.full.eq(full)]

    with m.State("HEAD"):
        m.d.sync += [
            full.eq(is_full),
            area.eq(Mux(is_full, generator.request_full + before, generator.request_window + (flat - before))),
        ]
        m.d.comb += [
            lists.index.eq((2 * flat + op.part) * config.requests + op.request),
            lists.load.eq(1),
        ]
        m.next = "AREA"
        with m.If((op.op == RlkvOp.PACK) & ~is_full):
            generator.fail(m, RlkvError.WINDOW_HEAD)

    with m.State("AREA"):
        floor = Mux(full, generator.packed, generator.window)
        m.d.sync += [
            base.eq(((area << 1) | op.part) * Mux(full, config.full_slots, config.window_slots)),
            oldest.eq(Mux(generator.start > floor, generator.start, floor)),
        ]
        m.next = "COUNT"
        with m.If((op.op == RlkvOp.READ) & full & (due != generator.packed)):
            generator.fail(m, RlkvError.UNPACKED)
        with m.If(op.op == RlkvOp.PACK):
            m.d.comb += lists.index.eq((2 * flat + op.part) * config.requests + op.request)
            m.d.sync += [node.eq(lists.block), position.eq(due)]
            with m.If(
                (op.beats == 0)
                | above(op.beats, config.block_beats)
                | (op.count == 0)
                | above(op.count, config.block_tokens)
                | (due + op.count > generator.packed)
            ):
                generator.fail(m, RlkvError.ROWS)
            with m.Elif(~lists.available):
                generator.fail(m, RlkvError.BLOCKS)
            with m.Else():
                m.d.comb += lists.append.eq(1)
                m.next = "PACK"

    with m.State("PACK"):
        _emit(m, generator, CommandKind.BLOCK, node, position, op.count, head_last=1)
        m.d.comb += run.beats.eq(op.beats)
        with m.If(generator.run.ready):
            m.next = "DONE"

    with m.State("COUNT"):
        m.d.sync += [
            count.eq(Mux(tokens > oldest, tokens - oldest, 0)),
            node.eq(entry.first),
            position.eq(config.sink),
            blocks_left.eq(entry.blocks),
        ]
        m.d.comb += [lists.node.eq(entry.first), lists.step.eq(walks)]
        m.next = "SINK"

    with m.State("SINK"):
        m.d.sync += slot.eq(Mux(next_slot < count, next_slot + size - count, next_slot - count))
        with m.If(generator.start < sinks):
            last = (count == 0) & ~walks
            _emit(
                m,
                generator,
                CommandKind.SINK,
                base + generator.start,
                generator.start,
                sinks - generator.start,
                head_last=last,
            )
        with m.If(~generator.run.valid | generator.run.ready):
            m.next = "RING"
            with m.If(walks):
                m.next = "BLOCK"

    with m.State("BLOCK"):
        last = (blocks_left == 1) & (count == 0)
        _emit(m, generator, CommandKind.BLOCK, node, position, lists.rows, head_last=last)
        m.d.comb += run.beats.eq(lists.beats)
        with m.If(generator.run.ready):
            m.d.comb += lists.step.eq(1)
            m.d.sync += [
                node.eq(lists.next),
                position.eq(position + lists.rows),
                blocks_left.eq(blocks_left - 1),
            ]
            with m.If(blocks_left == 1):
                m.next = "RING"

    ring_kind = Mux(full, CommandKind.RESIDUAL, CommandKind.WINDOW)
    ring = base + config.sink
    with m.State("RING"):
        with m.If(count != 0):
            _emit(m, generator, ring_kind, ring + slot, oldest, split, head_last=split == count)
        with m.If(~generator.run.valid | generator.run.ready):
            m.next = "NEXT"
            with m.If(split != count):
                m.next = "WRAP"
    with m.State("WRAP"):
        _emit(m, generator, ring_kind, ring, oldest + split, count - split, head_last=1)
        with m.If(generator.run.ready):
            m.next = "NEXT"

    with m.State("NEXT"):
        with m.If((op.op == RlkvOp.READ) & op.per_query & (generator.repeat != config.group - 1)):
            m.d.sync += generator.repeat.eq(generator.repeat + 1)
            m.next = "COUNT"
        with m.Elif(generator.head == op.last_head):
            m.next = "DONE"
        with m.Else():
            m.d.sync += [generator.head.eq(generator.head + 1), generator.repeat.eq(0)]
            m.next = "HEAD"


def _emit(m, generator, kind, index, token, tokens, *, head_last):
    run = generator.run.payload
    m.d.comb += [
        generator.run.valid.eq(1),
        run.kind.eq(kind),
        run.head.eq(generator.head),
        run.query.eq(generator.head * generator.config.group + generator.repeat),
        run.index.eq(index),
        run.token.eq(token),
        run.tokens.eq(tokens),
        run.head_last.eq(head_last),
    ]
