"""Alignment of FP16 activations to integers that share their group's exponent, once for all PEs that use them."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.carry import leading_zeros
from hw.arith.formats import FP16
from hw.prealigned.alignment import ALIGNMENT, aligned_integer
from hw.prealigned.beats import MAX_PLANES, AlignedBeat, GroupBeat
from hw.streams.queue import BeatQueue
from hw.streams.registers import delay
from spec import checks
from spec.packet import GROUP_SIZES
from spec.prealigned import ACTIVATION_BITS

__all__ = ["ActivationAligner"]

STORED = 4  # groups, a power of two
QUEUE = 16


class ActivationAligner(wiring.Component):
    """Aligns each group of activations to its largest exponent (equations A1 to A4 of docs/prealigned.md).

    ```
    i --> exponents: which occur --> largest ---+
     |                                          v
     +--> four groups of memory --> read ``planes`` times --> shift, round, negate --> o
    ```

    Groups come in while others go out, once per digit plane. Rounds to nearest even and saturates:
    ``|q| <= 2**(W-1) - 1``, error at most ``2**-(W-1) * max|a|`` for every activation, but for W = 10 and 11 in a group
    of subnormals alone: there it is at most ``2**(-13 - W)``, which may be more. Zeros and subnormals are values like
    others; an all-zero group has exponent 1. Inf and NaN become 0 and set ``poison``.

    Throughput is a beat per cycle in and out; a group of one beat takes 2 cycles. The first beat of a group leaves
    ``latency`` cycles after its last came in; four groups are stored, so that groups of few beats keep the rate.

    Parameters
    ----------
    lanes : int
        Activations per beat, a power of two up to 32.
    activation_bits : int
        W, 10..24.
    group_size : int
        Largest group, 32, 64 or 128. A group has 1 to ``group_size / lanes`` beats.

    Members
    -------
    i : stream of GroupBeat, In
    o : stream of AlignedBeat, Out

    Raises
    ------
    ValueError
        For parameters that are not supported.
    """

    latency = 17

    def __init__(self, lanes=16, activation_bits=16, group_size=128):
        checks.power_of_two("lanes", lanes, 1, 32)
        checks.choice("activation_bits", activation_bits, ACTIVATION_BITS)
        checks.choice("group_size", group_size, GROUP_SIZES)
        self.lanes = lanes
        self.activation_bits = activation_bits
        self.beats = max(1, group_size // lanes)
        super().__init__(
            {
                "i": In(stream.Signature(GroupBeat(lanes))),
                "o": Out(stream.Signature(AlignedBeat(lanes, activation_bits))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(
            shape=data.ArrayLayout(FP16, self.lanes), depth=STORED << ceil_log2(self.beats), init=[]
        )
        write, read = store.write_port(), store.read_port()
        end_bits = max(1, ceil_log2(self.beats))
        about = data.StructLayout(
            {"exponent": 5, "poison": 1, "before_end": end_bits, "single": 1, "planes": ceil_log2(MAX_PLANES)}
        )
        groups = [Signal(about, name=f"group{k}", reset_less=True) for k in range(STORED)]
        full = Signal(STORED)
        taken = Signal(STORED)
        freed = Signal(STORED)
        m.d.sync += full.eq((full | taken) & ~freed)

        self._write(m, write, groups, taken, freed, end_bits)
        self._read(m, read, groups, full, freed, end_bits)
        return m

    def _write(self, m, write, groups, taken, freed, end_bits):
        at = Signal(STORED, init=1)  # which group's place, one-hot
        beat = Signal(end_bits)
        side = Cat(at[1] | at[3], at[2] | at[3])
        i = self.i.payload
        transfer = Signal()
        open_side = Signal()
        occurring = Signal(32)  # bit e: a finite activation of exponent e, or an Inf or NaN, is in the beat
        m.d.comb += [
            self.i.ready.eq(open_side),
            transfer.eq(self.i.valid & self.i.ready),
            write.en.eq(transfer),
            write.addr.eq(Cat(beat[: ceil_log2(self.beats)], side)),
            write.data.eq(i.activations),
        ]
        hits = [[] for _ in range(32)]
        for lane in range(self.lanes):
            for exponent in range(1, 32):
                hits[exponent].append(i.activations[lane].exponent == exponent)
        m.d.comb += occurring.eq(Cat(Cat(hit).any() for hit in hits))

        # A cycle later, so that the exponents have a cycle of their own.
        seen = Signal(32, reset_less=True)
        now = Signal(32, reset_less=True)
        first = Signal(init=1)
        ends = Signal()
        ended = Signal()
        ended_at = Signal(STORED)
        came = Signal()
        m.d.comb += ends.eq(transfer & i.last)
        m.d.sync += [now.eq(occurring), came.eq(transfer), ended.eq(ends), ended_at.eq(at & ends.replicate(STORED))]
        end = Signal.like(beat, reset_less=True)
        planes = Signal.like(i.planes, reset_less=True)
        m.d.sync += [end.eq(beat), planes.eq(i.planes)]
        together = Signal(32)
        m.d.comb += together.eq((now & came.replicate(32)) | (seen & (~first).replicate(32)))
        m.d.sync += [seen.eq(together), first.eq(ended)]
        # The largest exponent takes two cycles.
        known = ended_at
        poison = Signal()
        largest = Signal(5)
        for k in range(3):
            before, known = known, Signal(STORED, name=f"known{k}")
            m.d.sync += known.eq(before)
        zeros = leading_zeros(m, Cat(C(0, 1), seen[1:31] | 1, C(0, 1)), "above", cut=3)
        m.d.sync += [largest.eq(~zeros[:5]), poison.eq(delay(m, seen[31], "any_poison"))]
        with m.If(transfer):
            m.d.sync += beat.eq(beat + 1)
            with m.If(i.last):
                m.d.sync += [beat.eq(0), at.eq(at.rotate_left(1))]
        for k, group in enumerate(groups):
            with m.If(ended_at[k]):
                m.d.sync += [group.before_end.eq(end - 1), group.single.eq(end == 0), group.planes.eq(planes)]
            with m.If(known[k]):
                m.d.sync += [group.exponent.eq(largest), group.poison.eq(poison)]
        m.d.comb += taken.eq(known)

        # A side is closed from its last beat until it has been read.
        closed = Signal(STORED)
        unread = Signal(STORED)
        m.d.comb += unread.eq(closed & ~freed)
        here, following = (unread & at).any(), (unread & at.rotate_left(1)).any()
        m.d.sync += [
            closed.eq(unread | (at & ends.replicate(STORED))),
            open_side.eq(Mux(ends, ~following, ~here)),
        ]

    def _read(self, m, read, groups, full, freed, end_bits):
        side = Signal(range(STORED))
        beat = Signal(end_bits)
        left = Signal(ceil_log2(MAX_PLANES))
        group = Signal.like(groups[0], reset_less=True)
        active = Signal()
        following = Signal.like(group, reset_less=True)  # the group after that
        ready = Signal()
        load = Signal(STORED, init=1)  # whose place it has, one-hot
        at_start = Signal()
        at_end = Signal()
        ending = Signal()  # the last beat of the group's last pass
        # Beats that leave the memory will find room in the queue: nothing before it ever waits.
        m.submodules.queue = queue = BeatQueue(self.o.payload.shape(), QUEUE)
        room = Signal(QUEUE - 1, init=-1)  # in unary, and for the beat of the cycle before too
        issue = Signal()
        turn = Signal()
        leaves = Signal(STORED)
        flags = data.StructLayout(
            {"valid": 1, "first": 1, "last": 1, "final": 1, "poison": 1, "exponent": 5, "complement": 5}
        )
        issued = Signal(flags)
        chosen = Signal(len(group.as_value()))
        m.d.comb += [
            issue.eq(active & room[1]),
            issued.valid.eq(issue),
            issued.first.eq(at_start),
            issued.last.eq(at_end),
            issued.final.eq(left == 0),
            turn.eq(ready & (~active | (issue & ending))),
            read.en.eq(1),
            read.addr.eq(Cat(beat[: ceil_log2(self.beats)], side)),
        ]
        places = (one.as_value() & here.replicate(len(chosen)) for one, here in zip(groups, load, strict=True))
        m.d.comb += chosen.eq(reduce(or_, places))
        more = Signal()
        less = Signal()
        m.d.sync += [
            more.eq(queue.taken & ~issue),
            less.eq(issue & ~queue.taken),
            room.eq(Mux(more, Cat(1, room[:-1]), Mux(less, room[1:], room))),
        ]
        with m.If(~ready):
            m.d.sync += [
                following.eq(chosen),
                ready.eq((full & load).any()),
                load.eq(Mux((full & load).any(), load.rotate_left(1), load)),
            ]
        then_at_end = Signal()
        then_left = Signal.like(left)
        m.d.comb += [
            then_at_end.eq(Mux(at_end, group.single, beat == group.before_end)),
            then_left.eq(left - at_end),
        ]
        with m.If(issue):
            m.d.sync += [
                beat.eq(Mux(at_end, 0, beat + 1)),
                at_start.eq(at_end),
                at_end.eq(then_at_end),
                left.eq(then_left),
                ending.eq(then_at_end & (then_left == 0)),
                active.eq(~ending),
                side.eq(side + ending),
            ]
        with m.If(turn):
            m.d.sync += [
                group.single.eq(following.single),
                group.before_end.eq(following.before_end),
                active.eq(1),
                ready.eq(0),
                at_start.eq(1),
                at_end.eq(following.single),
                left.eq(following.planes),
                ending.eq(following.single & (following.planes == 0)),
            ]
        m.d.comb += leaves.eq((issue & ending) << side)
        m.d.sync += freed.eq(leaves)

        # What many gates wait for follows a cycle later: the group's exponent joins its beats behind the first stage.
        turned = Signal()
        exponent = Signal(5, reset_less=True)
        poison = Signal(reset_less=True)
        m.d.sync += turned.eq(turn)
        with m.If(turned):
            m.d.sync += [exponent.eq(following.exponent), poison.eq(following.poison)]
        stages = [issued]
        for k in range(1 + ALIGNMENT):
            stage = Signal(flags, name=f"stage{k}")
            m.d.sync += stage.eq(stages[-1])
            if k == 1:
                m.d.sync += [stage.exponent.eq(exponent), stage.complement.eq(~exponent), stage.poison.eq(poison)]
            stages.append(stage)
        out = stages[-1]
        aligned = Signal(self.o.payload.shape())
        m.d.comb += [
            *(aligned[name].eq(out[name]) for name in ("exponent", "poison", "first", "last", "final")),
            queue.write.eq(out.valid),
            queue.i.eq(aligned),
            self.o.valid.eq(queue.o.valid),
            self.o.payload.eq(queue.o.payload),
            queue.o.ready.eq(self.o.ready),
        ]
        for lane in range(self.lanes):
            m.d.comb += aligned.integers[lane].eq(
                aligned_integer(m, self.activation_bits, lane, read.data[lane], stages[2])
            )
