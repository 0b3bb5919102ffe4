"""A job's loops: how it is cut into blocks, and counters that walk through them."""

from amaranth import C, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from spec.core import CoreConfig

__all__ = ["JobPlan", "Place", "PlaceCounter", "Plan"]


class Plan(data.StructLayout):
    """Sizes of a job that do not change while it runs.

    Members: ``tokens`` M, ``inputs`` K, ``chunk`` input channels of a full chunk, ``blocks`` of R output channels,
    ``super_blocks`` blocks of a full super-block, ``rest`` output channels of the last block minus 1, ``group_size``
    code, ``datatypes`` allowed, ``fp16``.
    """

    def __init__(self, config: CoreConfig):
        super().__init__(
            {
                "tokens": 32,
                "inputs": 15,
                "chunk": 13,
                "blocks": 15,
                "super_blocks": range(config.block_outputs // config.rows + 1),
                "rest": range(config.rows),
                "group_size": 2,
                "datatypes": 16,
                "fp16": 1,
            }
        )


class JobPlan(wiring.Component):
    """Computes a job's plan: equations T1 to T4 of docs/core.md, by repeated subtraction.

    Takes about ``N / block_outputs + K / chunk`` cycles and a few tens more.

    Members
    -------
    start : In
    tokens, inputs, outputs, group_size, datatypes, fp16 : In
        The job; held from ``start`` on.
    plan : Plan, Out
    done : Out
        One cycle; ``plan`` is valid from then to the next start.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "tokens": In(32),
                "inputs": In(16),
                "outputs": In(16),
                "group_size": In(2),
                "datatypes": In(16),
                "fp16": In(1),
                "plan": Out(Plan(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        plan = Signal(Plan(self.config))
        unit, rows = config.datapath.group_size, config.rows
        m.d.comb += self.plan.eq(plan)

        units = Signal(15)
        blocks = Signal(15)
        m.d.comb += [
            units.eq((self.inputs + (unit - 1)) >> (unit.bit_length() - 1)),
            blocks.eq((self.outputs + (rows - 1)) >> (rows.bit_length() - 1)),
        ]
        # ceil(count / most), then ceil(count / that), first for the chunks and then for the super-blocks.
        left = Signal(15)
        divisor = Signal(15)
        quotient = Signal(15)
        second = Signal()
        outputs = Signal()
        fits = Signal()
        result = Signal(15)
        m.d.comb += [fits.eq(left <= divisor), result.eq(quotient + 1)]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [
                        plan.tokens.eq(self.tokens),
                        plan.inputs.eq(self.inputs),
                        plan.blocks.eq(blocks),
                        plan.rest.eq((self.outputs - 1)[: max(1, rows.bit_length() - 1)]),
                        plan.group_size.eq(self.group_size),
                        plan.datatypes.eq(self.datatypes),
                        plan.fp16.eq(self.fp16),
                        second.eq(0),
                        outputs.eq(0),
                        left.eq(units),
                        divisor.eq(config.chunk // unit),
                        quotient.eq(0),
                    ]
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [left.eq(left - divisor), quotient.eq(result)]
                with m.If(fits):
                    m.d.sync += [quotient.eq(0), second.eq(~second)]
                    with m.If(~second):
                        m.d.sync += [left.eq(Mux(outputs, plan.blocks, units)), divisor.eq(result)]
                    with m.Elif(~outputs):
                        m.d.sync += [
                            plan.chunk.eq(result << (unit.bit_length() - 1)),
                            outputs.eq(1),
                            left.eq(plan.blocks),
                            divisor.eq(config.block_outputs // rows),
                        ]
                    with m.Else():
                        m.d.sync += plan.super_blocks.eq(result)
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m


class Place(data.StructLayout):
    """Where in a job's loops something is.

    Members: ``tokens`` in this token block, ``length`` input channels of this chunk, ``first_chunk``, ``last_chunk``,
    ``block`` within its super-block, ``only_block`` (the super-block has no other), ``last_block`` of the super-block,
    ``rows`` output channels of this block, ``last``: the job's last place.
    """

    def __init__(self, config: CoreConfig):
        super().__init__(
            {
                "tokens": range(config.block_tokens + 1),
                "length": 13,
                "first_chunk": 1,
                "last_chunk": 1,
                "block": range(max(2, config.block_outputs // config.rows)),
                "only_block": 1,
                "last_block": 1,
                "rows": range(config.rows + 1),
                "last": 1,
            }
        )


class PlaceCounter(wiring.Component):
    """Walks through a job's token blocks, super-blocks, chunks and blocks, innermost last (docs/core.md, section 2).

    Parameters
    ----------
    config : CoreConfig
    chunks, blocks : bool
        Whether it walks through these; a loop left out counts as its last iteration.

    Members
    -------
    plan : Plan, In
    load : In
        Go to the first place; ``place`` is valid 2 cycles later.
    next : In
        Go on; ``place`` is valid 2 cycles later.
    place : Place, Out
        Registered.
    settled : Out
        ``place`` is valid.
    """

    def __init__(self, config: CoreConfig, *, chunks: bool = True, blocks: bool = True):
        self.config = config
        self.chunks, self.blocks = chunks, blocks
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "next": In(1),
                "place": Out(Place(config)),
                "settled": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, plan = self.config, self.plan
        tokens_left = Signal(32)
        inputs_left = Signal(15)
        blocks_left = Signal(15)
        block = Signal(Place(config)["block"].shape)
        first_chunk = Signal()
        size = Signal(plan.super_blocks.shape())
        last_tokens, last_super, last_chunk, last_block = (
            Signal(name=f"last_{name}") for name in ("tokens", "super", "chunk", "block")
        )
        m.d.comb += [
            last_tokens.eq(tokens_left <= config.block_tokens),
            last_super.eq(blocks_left <= plan.super_blocks),
            size.eq(Mux(last_super, blocks_left, plan.super_blocks)),
            last_chunk.eq((inputs_left <= plan.chunk) if self.chunks else 1),
            last_block.eq((block + 1 == size) if self.blocks else 1),
        ]
        place = Signal(Place(config))
        settled = Signal()
        m.d.sync += [
            settled.eq(~self.load & ~self.next),
            place.tokens.eq(Mux(last_tokens, tokens_left, config.block_tokens)),
            place.length.eq(Mux(last_chunk, inputs_left, plan.chunk)),
            place.first_chunk.eq(first_chunk),
            place.last_chunk.eq(last_chunk),
            place.block.eq(block),
            place.only_block.eq(size == 1),
            place.last_block.eq(last_block),
            place.rows.eq(Mux(last_super & (block + 1 == size), plan.rest + 1, config.rows)),
            place.last.eq(last_tokens & last_super & last_chunk & last_block),
        ]
        m.d.comb += [self.place.eq(place), self.settled.eq(settled)]

        with m.If(self.load):
            m.d.sync += tokens_left.eq(plan.tokens)
        with m.If(self.load | (self.next & last_block & last_chunk & last_super)):
            m.d.sync += blocks_left.eq(plan.blocks)
            with m.If(~self.load):
                m.d.sync += tokens_left.eq(tokens_left - config.block_tokens)
        with m.Elif(self.next & last_block & last_chunk):
            m.d.sync += blocks_left.eq(blocks_left - plan.super_blocks)
        with m.If(self.load | (self.next & last_block & last_chunk)):
            m.d.sync += [inputs_left.eq(plan.inputs), first_chunk.eq(1)]
        with m.Elif(self.next & last_block):
            m.d.sync += [inputs_left.eq(inputs_left - plan.chunk), first_chunk.eq(0)]
        with m.If(self.load | (self.next & last_block)):
            m.d.sync += block.eq(C(0, 1))
        with m.Elif(self.next):
            m.d.sync += block.eq(block + 1)
        return m
