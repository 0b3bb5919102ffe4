"""Block lists in memory: every list is chained through its blocks, and so are the free ones."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.rlkv.layouts import ListEntry, address_bits, index_bits
from spec.rlkv import RlkvConfig

__all__ = ["BlockLists"]


class BlockLists(wiring.Component):
    """Lists of blocks and the pool that they take blocks from.

    One word per block names the next one of its list, so the table is as large as the pool, not requests times the
    longest context, and a whole list is freed by a single write: its last block is made to point to the first free one.
    Blocks that were never used come in order of their number, so that nothing needs to be initialized; freed ones come
    before them, last freed list first.

    Strobes, one at a time:

    - ``load``: reads the list ``index``; ``entry`` holds it from the next cycle until the next ``load``.
    - ``append`` (after a load of the list): takes a block, ``block`` in the same cycle, puts it at the end. Not without
      ``available``; no other strobe in the cycle after it.
    - ``free`` (after a load): gives the list's blocks back and empties it.
    - ``empty``: empties the list ``index`` without a look at what it holds.
    - ``restart``: all blocks of the pool, ``limit`` of them, are free again.
    - ``step``: reads the block ``node``; ``next``, ``beats`` and ``rows`` hold it from the next cycle until the next
      ``step``.

    Parameters
    ----------
    config : RlkvConfig
    """

    def __init__(self, config: RlkvConfig):
        self.config = config
        block = address_bits(config.blocks)
        info = {"beats": index_bits(config.block_beats), "rows": bits_for(config.block_tokens)}
        self.info = data.StructLayout(info)
        super().__init__(
            {
                "index": In(range(config.lists)),
                "load": In(1),
                "entry": Out(ListEntry(config)),
                "append": In(1),
                "new": In(self.info),
                "block": Out(block),
                "available": Out(1),
                "free": In(1),
                "empty": In(1),
                "restart": In(1),
                "limit": In(bits_for(config.blocks)),
                "free_blocks": Out(bits_for(config.blocks)),
                "step": In(1),
                "node": In(block),
                "next": Out(block),
                "beats": Out(info["beats"]),
                "rows": Out(info["rows"]),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.entries = entries = memory.Memory(shape=ListEntry(config), depth=config.lists, init=[])
        m.submodules.chain = chain = memory.Memory(shape=len(self.block), depth=max(2, config.blocks), init=[])
        m.submodules.info = info = memory.Memory(shape=self.info, depth=max(2, config.blocks), init=[])
        put, get = entries.write_port(), entries.read_port()
        link, follow = chain.write_port(), chain.read_port()
        note, look = info.write_port(), info.read_port()

        fresh = Signal.like(self.free_blocks)  # blocks from here on were never used
        freed = Signal.like(self.free_blocks)  # length of the chain that starts at `top`
        top = Signal.like(self.block)
        following = Signal()  # the block after `top` is being read
        recycle = Signal()
        m.d.comb += [
            recycle.eq(freed != 0),
            self.available.eq(self.free_blocks != 0),
            self.block.eq(Mux(recycle, top, fresh)),
        ]

        entry = self.entry
        m.d.comb += [
            get.addr.eq(self.index),
            get.en.eq(self.load),
            entry.eq(get.data),
            put.addr.eq(self.index),
            put.en.eq(self.append | self.free | self.empty),
            link.addr.eq(entry.last),
            link.data.eq(Mux(self.append, self.block, top)),
            link.en.eq((self.append | self.free) & (entry.blocks != 0)),
            note.addr.eq(self.block),
            note.data.eq(self.new),
            note.en.eq(self.append),
            follow.addr.eq(Mux(self.append, top, self.node)),
            follow.en.eq(self.step | self.append),
            look.addr.eq(self.node),
            look.en.eq(self.step),
            self.next.eq(follow.data),
            self.beats.eq(look.data.beats),
            self.rows.eq(look.data.rows),
        ]
        with m.If(self.append):
            m.d.comb += [
                put.data.first.eq(Mux(entry.blocks == 0, self.block, entry.first)),
                put.data.last.eq(self.block),
                put.data.blocks.eq(entry.blocks + 1),
                put.data.tokens.eq(entry.tokens + self.new.rows),
            ]

        m.d.sync += following.eq(self.append & recycle)
        with m.If(following):
            m.d.sync += top.eq(follow.data)
        with m.If(self.restart):
            m.d.sync += [fresh.eq(0), freed.eq(0), self.free_blocks.eq(self.limit)]
        with m.Elif(self.append):
            m.d.sync += self.free_blocks.eq(self.free_blocks - 1)
            with m.If(recycle):
                m.d.sync += freed.eq(freed - 1)
            with m.Else():
                m.d.sync += fresh.eq(fresh + 1)
        with m.Elif(self.free & (entry.blocks != 0)):
            m.d.sync += [
                top.eq(entry.first),
                freed.eq(freed + entry.blocks),
                self.free_blocks.eq(self.free_blocks + entry.blocks),
            ]
        return m
