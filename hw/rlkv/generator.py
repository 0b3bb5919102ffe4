"""The KV address generator: operations on sequences in, memory transfers of full and window heads out."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.rlkv.address import RunAddress
from hw.rlkv.blocks import BlockLists
from hw.rlkv.layouts import CommandLayout, OperationLayout, PoolsLayout, StatusLayout, above
from hw.rlkv.policy import PolicyTable
from hw.rlkv.requests import add_request_states
from hw.rlkv.sequences import Sequences
from hw.rlkv.transfers import add_transfer_states
from spec import checks
from spec.rlkv import RlkvConfig
from spec.rlkv_transfers import CommandKind, RlkvError, RlkvOp

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
        checks.instance("config", config, RlkvConfig)
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
            add_request_states(m, self)
            add_transfer_states(m, self)
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

    def fail(self, m, error: RlkvError):
        """From this state to DONE with a status."""
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
                self.fail(m, RlkvError.OPERATION)
            with m.Elif(op.op == RlkvOp.POLICY):
                m.d.comb += self.policy.i.valid.eq(~self.open.any())
                m.d.sync += self.error.eq(Mux(self.open.any() | self.policy.refused, RlkvError.POLICY, RlkvError.NONE))
                m.next = "DONE"
            with m.Elif(above(op.request, config.requests - 1) | (is_open == (op.op == RlkvOp.OPEN))):
                self.fail(m, RlkvError.REQUEST)
            with m.Elif(op.op == RlkvOp.OPEN):
                with m.If(self.policy.valid):
                    m.next = "POOLS"
                with m.Else():
                    self.fail(m, RlkvError.POLICY)
            with m.Elif(op.op == RlkvOp.CLOSE):
                m.next = "CLOSE"
            with m.Elif(op.op == RlkvOp.EXTEND):
                with m.If(op.count == 0):
                    self.fail(m, RlkvError.LENGTH)
                with m.Elif(state.tokens + op.count > config.context):
                    self.fail(m, RlkvError.CONTEXT)
                with m.Else():
                    m.d.comb += self.sequences.extend.eq(1)
                    m.next = "EXTEND"
            with m.Elif(above(op.layer, config.layers - 1)):
                self.fail(m, RlkvError.LAYER)
            with m.Elif(
                above(op.last_head, config.heads - 1)
                | (op.head > op.last_head)
                | ((op.op == RlkvOp.PACK) & (op.head != op.last_head))
            ):
                self.fail(m, RlkvError.HEAD)
            with m.Elif(state.tokens == 0):
                self.fail(m, RlkvError.LENGTH)
            with m.Else():
                m.next = "HEAD"
        with m.State("EXTEND"):
            with m.If(~self.sequences.busy):
                m.next = "DONE"

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
