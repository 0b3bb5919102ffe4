"""The KV address generator: operations on sequences in, memory transfers of full and window heads out."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.rlkv.address import RunAddress
from hw.rlkv.blocks import BlockLists
from hw.rlkv.layouts import CommandLayout, OperationLayout, PoolsLayout, StatusLayout, above, run_slots
from hw.rlkv.policy import PolicyTable, popcount
from hw.rlkv.sequences import Sequences
from hw.spec.rlkv import CommandKind, RlkvConfig, RlkvError, RlkvOp

__all__ = ["KvAddressGenerator"]


class KvAddressGenerator(wiring.Component):
    """Turns (request, layer, KV heads) into the reads and writes of a cache of full and window heads (RLKV, section 4).

    ```
                 +-> PolicyTable   full or window, rank among its kind
    operation ---+-> Sequences     length, ring positions      ---> runs of slots, ---> RunAddress ---> commands
                 +-> BlockLists    lists, free blocks               blocks
    ```

    An operation gives zero or more transfers, then one DONE with its status (docs/rlkv.md, bit for bit). A failed
    one changes nothing; its transfers, if any came before DONE, are to be discarded. The next one is exact.

    Latency from an operation to its first command: 7 cycles. READ and WRITE take 6 to 8 cycles per head (each query
    head with ``per_query``) and one more per block; PACK 6; EXTEND ``Sequences.latency`` + 4; OPEN a cycle and CLOSE
    two per list of the request.

    Parameters
    ----------
    config : RlkvConfig

    Members
    -------
    i : stream of OperationLayout, In
    pools : PoolsLayout, In
        Taken over by the OPEN that finds no other request open; stable until that is done.
    clear : In
        Clears ``status.errors`` and ``status.count`` (an error of the same cycle stays).
    o : stream of CommandLayout, Out
    status : StatusLayout, Out

    Raises
    ------
    TypeError
        If ``config`` is not an RlkvConfig.
    """

    def __init__(self, config: RlkvConfig):
        if not isinstance(config, RlkvConfig):
            raise TypeError(f"config must be an RlkvConfig, not {config!r}")
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(OperationLayout(config))),
                "pools": In(PoolsLayout(config)),
                "clear": In(1),
                "o": Out(stream.Signature(CommandLayout(config))),
                "status": Out(StatusLayout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.policy = self.policy = PolicyTable(config)
        m.submodules.sequences = self.sequences = Sequences(config)
        m.submodules.lists = self.lists = BlockLists(config)
        m.submodules.address = address = RunAddress(config)
        wiring.connect(m, address.o, wiring.flipped(self.o))
        self.run = address.i

        self.op = op = Signal(OperationLayout(config))
        self.error = Signal(RlkvError)
        self.open = Signal(config.requests)
        self.taken = taken = Signal(PoolsLayout(config))  # the pools in use
        self.request_full = Signal(range(config.areas + 1))  # areas of lower requests
        self.request_window = Signal(range(config.areas + 1))
        m.d.comb += [
            address.pools.eq(taken),
            self.lists.limit.eq(taken.blocks),
            self.policy.i.payload.mask.eq(op.mask),
            self.policy.i.payload.last.eq(op.last),
            self.sequences.count.eq(op.count),
            self.sequences.request.eq(op.request),
            self.policy.layer.eq(op.layer),
        ]
        # What most runs have in common; the states set the rest.
        run = self.run.payload
        m.d.comb += [
            run.write.eq((op.op == RlkvOp.WRITE) | (op.op == RlkvOp.PACK)),
            run.part.eq(op.part),
            run.request.eq(op.request),
            run.layer.eq(op.layer),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.i.ready.eq(1),
                    self.sequences.request.eq(self.i.payload.request),
                    self.policy.layer.eq(self.i.payload.layer),
                    self.sequences.load.eq(self.i.valid),
                    self.policy.read.eq(self.i.valid),
                ]
                with m.If(self.i.valid):
                    m.d.sync += [op.eq(self.i.payload), self.error.eq(RlkvError.NONE)]
                    m.next = "CHECK"
            self._check(m)
            self._open_and_close(m)
            self._transfer(m)
            with m.State("DONE"):
                m.d.comb += [
                    self.run.valid.eq(1),
                    run.kind.eq(CommandKind.DONE),
                    run.last.eq(1),
                    run.status.eq(self.error),
                ]
                with m.If(self.run.ready):
                    m.next = "IDLE"
        self._keep_status(m)
        return m

    def _fail(self, m, error: RlkvError):
        m.d.sync += self.error.eq(error)
        m.next = "DONE"

    def _check(self, m):
        """The checks that need no list, in the order of the error codes."""
        config, op, state = self.config, self.op, self.sequences.state
        heads = config.layers * config.heads
        self.start = Signal.like(state.tokens)  # first token to transfer
        self.packed = Signal.like(state.tokens)  # first token of a full head's residual
        self.window = Signal.like(state.tokens)  # first token of a window head's ring
        self.head = Signal.like(op.head)
        self.repeat = Signal(range(max(2, config.group)))
        due = Signal.like(state.tokens)
        block_bits = (config.block_tokens - 1).bit_length()
        older = Mux(state.tokens > config.residual, state.tokens - config.residual, 0)
        m.d.comb += due.eq(older[block_bits:] << block_bits)
        is_open = self.open.bit_select(op.request, 1)
        with m.State("CHECK"):
            m.d.sync += [
                self.request_full.eq(op.request * self.policy.full),
                self.request_window.eq(op.request * (heads - self.policy.full)),
                self.start.eq(Mux(op.op == RlkvOp.READ, 0, state.start)),
                self.packed.eq(Mux(due > config.sink, due, config.sink)),
                self.window.eq(
                    Mux(state.tokens > config.sink + config.recent, state.tokens - config.recent, config.sink)
                ),
                self.head.eq(op.head),
                self.repeat.eq(0),
            ]
            with m.If(op.op == 0):
                self._fail(m, RlkvError.OPERATION)
            with m.Elif(op.op == RlkvOp.POLICY):
                m.d.comb += self.policy.i.valid.eq(~self.open.any())
                m.d.sync += self.error.eq(Mux(self.open.any() | self.policy.refused, RlkvError.POLICY, RlkvError.NONE))
                m.next = "DONE"
            with m.Elif(above(op.request, config.requests - 1) | (is_open == (op.op == RlkvOp.OPEN))):
                self._fail(m, RlkvError.REQUEST)
            with m.Elif(op.op == RlkvOp.OPEN):
                with m.If(self.policy.valid):
                    m.next = "POOLS"
                with m.Else():
                    self._fail(m, RlkvError.POLICY)
            with m.Elif(op.op == RlkvOp.CLOSE):
                m.next = "CLOSE"
            with m.Elif(op.op == RlkvOp.EXTEND):
                with m.If(op.count == 0):
                    self._fail(m, RlkvError.LENGTH)
                with m.Elif(state.tokens + op.count > config.context):
                    self._fail(m, RlkvError.CONTEXT)
                with m.Else():
                    m.d.comb += self.sequences.extend.eq(1)
                    m.next = "EXTEND"
            with m.Elif(above(op.layer, config.layers - 1)):
                self._fail(m, RlkvError.LAYER)
            with m.Elif(
                above(op.last_head, config.heads - 1)
                | (op.head > op.last_head)
                | ((op.op == RlkvOp.PACK) & (op.head != op.last_head))
            ):
                self._fail(m, RlkvError.HEAD)
            with m.Elif(state.tokens == 0):
                self._fail(m, RlkvError.LENGTH)
            with m.Else():
                m.next = "HEAD"
        with m.State("EXTEND"):
            with m.If(~self.sequences.busy):
                m.next = "DONE"

    def _open_and_close(self, m):
        config, op, taken, lists = self.config, self.op, self.taken, self.lists
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
            with m.If(~self.open.any()):
                m.d.sync += taken.eq(self.pools)
            m.next = "LIMITS"
        with m.State("LIMITS"):
            m.d.sync += [
                fits.eq((ends[0] <= top) & (ends[1] <= top) & (ends[2] <= top) & ~above(taken.blocks, config.blocks)),
                room.eq(
                    (self.request_full + self.policy.full <= taken.full_areas)
                    & (self.request_window + (config.layers * config.heads - self.policy.full) <= taken.window_areas)
                ),
                index.eq(op.request),
                left.eq(per_request - 1),
            ]
            m.next = "OPEN"
        with m.State("OPEN"):
            with m.If(~self.open.any() & ~fits):
                self._fail(m, RlkvError.ADDRESS)
            with m.Else():
                m.d.comb += lists.restart.eq(~self.open.any())
                with m.If(room):
                    m.d.comb += self.sequences.clear.eq(1)
                    m.next = "EMPTY"
                with m.Else():
                    self._fail(m, RlkvError.AREAS)

        with m.State("EMPTY"):
            m.d.comb += lists.empty.eq(1)
            m.d.sync += [index.eq(index + config.requests), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += self.open.bit_select(op.request, 1).eq(1)
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
                m.d.sync += self.open.bit_select(op.request, 1).eq(0)
                m.next = "DONE"

    def _transfer(self, m):
        """READ, WRITE and PACK: head after head."""
        config, op, lists, run = self.config, self.op, self.lists, self.run.payload
        tokens, entry = self.sequences.state.tokens, self.lists.entry
        full = Signal()
        area = Signal(range(config.areas))
        base = Signal(range(run_slots(config)))  # slot in which the head's keys or values start
        before = Signal(range(config.layers * config.heads + 1))
        flat = Signal(range(config.layers * config.heads))
        lower = Signal(config.heads)
        is_full = self.policy.mask.bit_select(self.head, 1)
        m.d.comb += [
            lower.eq(self.policy.mask & ((1 << self.head) - 1)[: config.heads]),
            before.eq(self.policy.before + popcount(lower)),
            flat.eq(op.layer * config.heads + self.head),
        ]

        oldest = Signal.like(tokens)  # first token of the ring to transfer
        count = Signal(range(max(config.residual_slots, config.recent) + 1))
        size = Mux(full, config.residual_slots, config.recent)
        next_slot = Mux(full, self.sequences.state.residual, self.sequences.state.window)
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
                area.eq(Mux(is_full, self.request_full + before, self.request_window + (flat - before))),
            ]
            m.d.comb += [
                lists.index.eq((2 * flat + op.part) * config.requests + op.request),
                lists.load.eq(1),
            ]
            m.next = "AREA"
            with m.If((op.op == RlkvOp.PACK) & ~is_full):
                self._fail(m, RlkvError.WINDOW_HEAD)

        with m.State("AREA"):
            floor = Mux(full, self.packed, self.window)
            m.d.sync += [
                base.eq(((area << 1) | op.part) * Mux(full, config.full_slots, config.window_slots)),
                oldest.eq(Mux(self.start > floor, self.start, floor)),
            ]
            m.next = "COUNT"
            with m.If((op.op == RlkvOp.READ) & full & (due != self.packed)):
                self._fail(m, RlkvError.UNPACKED)
            with m.If(op.op == RlkvOp.PACK):
                m.d.comb += lists.index.eq((2 * flat + op.part) * config.requests + op.request)
                m.d.sync += [node.eq(lists.block), position.eq(due)]
                with m.If(
                    (op.beats == 0)
                    | above(op.beats, config.block_beats)
                    | (op.count == 0)
                    | above(op.count, config.block_tokens)
                    | (due + op.count > self.packed)
                ):
                    self._fail(m, RlkvError.ROWS)
                with m.Elif(~lists.available):
                    self._fail(m, RlkvError.BLOCKS)
                with m.Else():
                    m.d.comb += lists.append.eq(1)
                    m.next = "PACK"

        with m.State("PACK"):
            self._emit(m, CommandKind.BLOCK, node, position, op.count, head_last=1)
            m.d.comb += run.beats.eq(op.beats)
            with m.If(self.run.ready):
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
            with m.If(self.start < sinks):
                last = (count == 0) & ~walks
                self._emit(m, CommandKind.SINK, base + self.start, self.start, sinks - self.start, head_last=last)
            with m.If(~self.run.valid | self.run.ready):
                m.next = "RING"
                with m.If(walks):
                    m.next = "BLOCK"

        with m.State("BLOCK"):
            last = (blocks_left == 1) & (count == 0)
            self._emit(m, CommandKind.BLOCK, node, position, lists.rows, head_last=last)
            m.d.comb += run.beats.eq(lists.beats)
            with m.If(self.run.ready):
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
                self._emit(m, ring_kind, ring + slot, oldest, split, head_last=split == count)
            with m.If(~self.run.valid | self.run.ready):
                m.next = "NEXT"
                with m.If(split != count):
                    m.next = "WRAP"
        with m.State("WRAP"):
            self._emit(m, ring_kind, ring, oldest + split, count - split, head_last=1)
            with m.If(self.run.ready):
                m.next = "NEXT"

        with m.State("NEXT"):
            with m.If((op.op == RlkvOp.READ) & op.per_query & (self.repeat != config.group - 1)):
                m.d.sync += self.repeat.eq(self.repeat + 1)
                m.next = "COUNT"
            with m.Elif(self.head == op.last_head):
                m.next = "DONE"
            with m.Else():
                m.d.sync += [self.head.eq(self.head + 1), self.repeat.eq(0)]
                m.next = "HEAD"

    def _emit(self, m, kind, index, token, tokens, *, head_last):
        run = self.run.payload
        m.d.comb += [
            self.run.valid.eq(1),
            run.kind.eq(kind),
            run.head.eq(self.head),
            run.query.eq(self.head * self.config.group + self.repeat),
            run.index.eq(index),
            run.token.eq(token),
            run.tokens.eq(tokens),
            run.head_last.eq(head_last),
        ]

    def _keep_status(self, m):
        status, run = self.status, self.run
        errors = Signal.like(status.errors)
        count = Signal.like(status.count)
        failed = run.valid & run.ready & (run.payload.status != RlkvError.NONE)
        kept = Mux(self.clear, 0, count)
        m.d.sync += [
            errors.eq(Mux(self.clear, 0, errors) | Mux(failed, 1 << run.payload.status, 0)),
            count.eq(kept + (failed & ~kept.all())),
        ]
        m.d.comb += [
            status.errors.eq(errors),
            status.count.eq(count),
            status.open.eq(self.open),
            status.free_blocks.eq(self.lists.free_blocks),
        ]
