"""What the stages behind the engine have to know of the blocks on their way: masks, sizes, whether to add centres."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import increment
from spec.kv_config import KvEngineConfig

__all__ = ["BlockNote", "MaskQueue", "MaskWrites"]

BLOCKS = 4
"""On their way at a time: at the front, at the sequencer, in transforms and in the token buffer."""
SLICE = 16


class BlockNote(data.Struct):
    """``split``: there are two segments; ``segment0`` as in the header; ``add``: the centre is added."""

    split: 1
    segment0: 4
    add: 1


class MaskWrites(wiring.Signature):
    """How the front fills the queue.

    ``slice``, ``index``, ``write``: bits ``16 * index`` and following of the mask of the block to come. ``note``,
    ``write_note``: its note. ``push``: it is on its way. ``room``: another block may come; ``empty``: none is on its
    way.
    """

    def __init__(self):
        super().__init__(
            {
                "slice": Out(SLICE),
                "index": Out(3),
                "write": Out(1),
                "note": Out(BlockNote),
                "write_note": Out(1),
                "push": Out(1),
                "room": In(1),
                "empty": In(1),
            }
        )


class MaskQueue(wiring.Component):
    """A queue of blocks' masks and notes, read at two places: where tokens enter the buffer, and where they leave it.

    Memories, whose outputs serve as registers: what is asked for now is there in the next cycle.

    Members
    -------
    i : MaskWrites, In
    entering, entered : BlockNote, Out; In
        Note of the block at the buffer's entrance; its last beat enters.
    next_beat, beat, left : In
        Beat of the token that leaves next, and now; the block's last beat leaves.
    mask, add : Out
        Mask of this beat's channels, all ones without segments; whether the centre is added.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        beats = ceil_log2(config.max_channels // config.lanes)
        super().__init__(
            {
                "i": In(MaskWrites()),
                "entering": Out(BlockNote),
                "entered": In(1),
                "next_beat": In(beats),
                "beat": In(beats),
                "left": In(1),
                "mask": Out(config.lanes),
                "add": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        bits = ceil_log2(BLOCKS)
        # A bit more than an address: head and tail differ by `BLOCKS` when the queue is full.
        come, enter, leave = (Signal(bits + 1, name=name) for name in ("come", "enter", "leave"))
        entering = Signal(bits + 1)
        leaving = Signal(bits + 1)
        m.d.comb += [
            entering.eq(increment(m, enter, self.entered)),
            leaving.eq(increment(m, leave, self.left)),
            self.i.room.eq((come[:bits] != leave[:bits]) | (come[bits] == leave[bits])),
            self.i.empty.eq(come == leave),
        ]
        m.d.sync += [come.eq(increment(m, come, self.i.push)), enter.eq(entering), leave.eq(leaving)]

        m.submodules.notes = notes = memory.Memory(shape=BlockNote, depth=BLOCKS, init=[])
        write, entrance, exit_ = notes.write_port(), notes.read_port(), notes.read_port()
        m.d.comb += [
            write.addr.eq(come[:bits]),
            write.data.eq(self.i.note),
            write.en.eq(self.i.write_note),
            entrance.addr.eq(entering[:bits]),
            exit_.addr.eq(leaving[:bits]),
            self.entering.eq(entrance.data),
            self.add.eq(exit_.data.add),
        ]

        # A slice serves 4 or 2 beats of few lanes; of 32 lanes each half has a memory.
        banks = max(1, lanes // SLICE)
        rows = self.config.max_channels // (SLICE * banks)
        parts, wide = ceil_log2(max(1, SLICE // lanes)), ceil_log2(banks)
        words = []
        for k in range(banks):
            m.submodules[f"masks{k}"] = masks = memory.Memory(shape=SLICE, depth=BLOCKS * rows, init=[])
            write, read = masks.write_port(), masks.read_port()
            m.d.comb += [
                write.addr.eq(Cat(self.i.index[wide:][: ceil_log2(rows)], come[:bits])),
                write.data.eq(self.i.slice),
                write.en.eq(self.i.write & ((self.i.index[:wide] == k) if wide else 1)),
                read.addr.eq(Cat(self.next_beat[parts:], leaving[:bits])),
            ]
            words.append(read.data)
        found = Cat(words) if not parts else words[0].word_select(self.beat[:parts], lanes)
        m.d.comb += self.mask.eq(Mux(exit_.data.split, found, (1 << lanes) - 1))
        return m
