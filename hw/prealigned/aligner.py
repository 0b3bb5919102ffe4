"""Alignment of FP16 activations to integers that share their group's exponent, once for all PEs that use them."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.pe import FP16
from hw.prealigned.carry import increment, leading_zeros
from hw.spec.packet import GROUP_SIZES
from hw.spec.prealigned import ACTIVATION_BITS

__all__ = ["ActivationAligner", "AlignedBeat", "GroupBeat"]

SIGNIFICAND_BITS = 11
MAX_PLANES = 4
QUEUE = 16


class GroupBeat(data.StructLayout):
    """FP16 activations of one group, lane 0 lowest; unused lanes are 0.

    ``last`` ends the group; ``planes`` - 1 says how often it is wanted and counts with ``last``.
    """

    def __init__(self, lanes):
        super().__init__({"activations": data.ArrayLayout(FP16, lanes), "last": 1, "planes": ceil_log2(MAX_PLANES)})


class AlignedBeat(data.StructLayout):
    """Aligned activations: the value of ``integers[l]`` q is ``q * 2**(exponent - 13 - activation_bits)``.

    Members: ``integers``, ``exponent``, ``poison`` (an Inf or NaN in the group), ``first`` and ``last`` beat of a pass,
    ``final`` (the group's last pass).
    """

    def __init__(self, lanes, activation_bits):
        super().__init__(
            {
                "integers": data.ArrayLayout(signed(activation_bits), lanes),
                "exponent": 5,
                "poison": 1,
                "first": 1,
                "last": 1,
                "final": 1,
            }
        )


class ActivationAligner(wiring.Component):
    """Aligns each group of activations to its largest exponent (equations A1 to A4 of docs/prealigned.md).

    ```
    i --> exponents: which occur --> largest ---+
     |                                          v
     +--> two groups of memory --> read ``planes`` times --> shift, round, negate --> o
    ```

    One group comes in while the other goes out, once per digit plane. Rounds to nearest even and saturates:
    ``|q| <= 2**(W-1) - 1``, error at most ``2**-(W-1) * max|a|`` for every activation. Zeros and subnormals are exact
    values like others; an all-zero group has exponent 1. Inf and NaN become 0 and set ``poison``.

    Throughput is a beat per cycle in and out, with a cycle of rest between groups; the first beat of a group leaves
    ``latency`` cycles after its last came in.

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

    latency = 13

    def __init__(self, lanes=16, activation_bits=16, group_size=128):
        if lanes not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"lanes must be a power of two up to 32, not {lanes!r}")
        if activation_bits not in ACTIVATION_BITS:
            raise ValueError(
                f"activation_bits must be in {ACTIVATION_BITS[0]}..{ACTIVATION_BITS[-1]}, not {activation_bits!r}"
            )
        if group_size not in GROUP_SIZES:
            raise ValueError(f"group_size must be one of {GROUP_SIZES}, not {group_size!r}")
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
            shape=data.ArrayLayout(FP16, self.lanes), depth=2 * self.beats, init=[]
        )
        write, read = store.write_port(), store.read_port()
        end_bits = max(1, ceil_log2(self.beats))
        about = data.StructLayout({"exponent": 5, "poison": 1, "end": end_bits, "planes": ceil_log2(MAX_PLANES)})
        groups = [Signal(about, name=f"group{k}", reset_less=True) for k in range(2)]
        full = Signal(2)
        taken, freed = Signal(2), Signal(2)
        m.d.sync += full.eq((full | taken) & ~freed)

        self._write(m, write, groups, taken, freed, end_bits)
        self._read(m, read, groups, full, freed, end_bits)
        return m

    def _write(self, m, write, groups, taken, freed, end_bits):
        side, beat = Signal(), Signal(end_bits)
        i = self.i.payload
        transfer, open_side = Signal(), Signal()
        occurring = Signal(32)  # bit e: a finite activation of exponent e, or an Inf or NaN, is in the beat
        m.d.comb += [
            self.i.ready.eq(open_side),
            transfer.eq(self.i.valid & self.i.ready),
            write.en.eq(transfer),
            write.addr.eq(Cat(beat, side)[-len(write.addr) :] if self.beats > 1 else side),
            write.data.eq(i.activations),
        ]
        hits = [[] for _ in range(32)]
        for lane in range(self.lanes):
            for exponent in range(1, 32):
                hits[exponent].append(i.activations[lane].exponent == exponent)
        m.d.comb += occurring.eq(Cat(Cat(hit).any() for hit in hits))

        # A cycle later, so that the exponents have a cycle of their own.
        seen, now = Signal(32, reset_less=True), Signal(32, reset_less=True)
        first = Signal(init=1)
        ended, ended_side = Signal(), Signal()
        came = Signal()
        m.d.sync += [now.eq(occurring), came.eq(transfer), ended.eq(transfer & i.last), ended_side.eq(side)]
        end, planes = Signal.like(beat, reset_less=True), Signal.like(i.planes, reset_less=True)
        m.d.sync += [end.eq(beat), planes.eq(i.planes)]
        together = Signal(32)
        m.d.comb += together.eq((now & came.replicate(32)) | (seen & (~first).replicate(32)))
        m.d.sync += [seen.eq(together), first.eq(ended)]
        done, done_side = Signal(), Signal()
        known, known_side, poison = Signal(), Signal(), Signal()
        m.d.sync += [done.eq(ended), done_side.eq(ended_side), known.eq(done), known_side.eq(done_side)]
        largest = Signal(5)
        m.d.sync += poison.eq(seen[31])
        m.d.sync += largest.eq(30 - leading_zeros(m, Cat(C(0, 1), seen[1:31] | 1)[:31], "above"))
        with m.If(transfer):
            m.d.sync += beat.eq(beat + 1)
            with m.If(i.last):
                m.d.sync += [beat.eq(0), side.eq(~side)]
        for k, group in enumerate(groups):
            with m.If(ended & (ended_side == k)):
                m.d.sync += [group.end.eq(end), group.planes.eq(planes)]
            with m.If(known & (known_side == k)):
                m.d.sync += [group.exponent.eq(largest), group.poison.eq(poison)]
                m.d.comb += taken[k].eq(1)

        # A side is closed from its last beat until it has been read.
        closed, closed_next, side_next = Signal(2), Signal(2), Signal()
        ends = transfer & i.last
        m.d.comb += [
            closed_next.eq((closed | (ends.replicate(2) & Cat(~side, side))) & ~freed),
            side_next.eq(side ^ ends),
        ]
        m.d.sync += [closed.eq(closed_next), open_side.eq(~(closed_next >> side_next)[0])]

    def _read(self, m, read, groups, full, freed, end_bits):
        side, beat, plane = Signal(), Signal(end_bits), Signal(ceil_log2(MAX_PLANES))
        group, active = Signal.like(groups[0], reset_less=True), Signal()
        # Beats that leave the memory will find room in the queue: nothing behind it ever waits.
        m.submodules.queue = queue = SyncFIFOBuffered(width=len(self.o.payload.as_value()), depth=QUEUE)
        room = Signal(range(QUEUE + 1), init=QUEUE)
        issue, enough = Signal(), Signal()
        flags = data.StructLayout({"valid": 1, "first": 1, "last": 1, "final": 1, "exponent": 5, "poison": 1})
        issued = Signal(flags)
        at_end = beat == group.end
        m.d.comb += [
            issue.eq(active & enough),
            issued.valid.eq(issue),
            issued.first.eq(beat == 0),
            issued.last.eq(at_end),
            issued.final.eq(plane == group.planes),
            issued.exponent.eq(group.exponent),
            issued.poison.eq(group.poison),
            read.en.eq(1),
            read.addr.eq(Cat(beat, side)[-len(read.addr) :] if self.beats > 1 else side),
        ]
        with m.If(~active):
            m.d.sync += [
                group.eq(Mux(side, groups[1].as_value(), groups[0].as_value())),
                active.eq((full >> side)[0]),
            ]
        with m.If(issue):
            m.d.sync += beat.eq(Mux(at_end, 0, beat + 1))
            with m.If(at_end):
                m.d.sync += plane.eq(Mux(issued.final, 0, plane + 1))
                with m.If(issued.final):
                    m.d.sync += [side.eq(~side), active.eq(0)]
                    m.d.comb += freed.eq(Mux(side, 0b10, 0b01))

        stages = [issued]
        for k in range(6):
            stage = Signal(flags, name=f"stage{k}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        out, aligned = stages[-1], Signal(self.o.payload.shape())
        m.d.comb += [
            *(aligned[name].eq(out[name]) for name in ("exponent", "poison", "first", "last", "final")),
            queue.w_en.eq(out.valid),
            queue.w_data.eq(aligned),
            self.o.valid.eq(queue.r_rdy),
            self.o.payload.eq(queue.r_data),
            queue.r_en.eq(self.o.ready),
        ]
        m.d.sync += [room.eq(room - issue + (self.o.valid & self.o.ready)), enough.eq(room > 2)]
        for lane in range(self.lanes):
            m.d.comb += aligned.integers[lane].eq(self._align(m, lane, read.data[lane], stages[1].exponent))

    def _align(self, m, lane, activation, largest):
        """A2 and A3 in five cycles: how far; shift, in two steps; which way to round; round and negate."""
        width = self.activation_bits

        def register(value, name):
            signal = Signal(len(value), name=f"{name}{lane}", reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Cycle 1.
        normal, finite = activation.exponent.any(), ~activation.exponent.all()
        significand = register(Cat(activation.fraction, normal) & finite.replicate(SIGNIFICAND_BITS), "significand")
        exponent = Cat(activation.exponent[0] | ~normal, activation.exponent[1:])
        amount = register((largest - exponent)[:5], "amount")
        sign = register(activation.sign, "sign1_")

        # Cycles 2 and 3. With the largest exponent the significand ends below bit `place`; an integer has width - 1
        # bits. Two bits more below: guard, and another that gathers what the shift loses.
        place = max(width - 1, SIGNIFICAND_BITS)
        excess = place - (width - 1)
        value = Cat(C(0, 2 + place - SIGNIFICAND_BITS), significand)
        value = register(self._shift(m, value, amount[:2], f"near{lane}"), "near")
        amount, sign = register(Cat(C(0, 2), amount[2:]), "rest"), register(sign, "sign2_")
        value = register(self._shift(m, value, amount, f"far{lane}"), "far")
        sign = register(sign, "sign3_")

        # Cycle 4. -(floor + up) = ~floor + 1 - up
        floor, guard, sticky = value[2 + excess :], value[1 + excess], value[: 1 + excess].any()
        up = guard & (sticky | floor[0]) & ~floor.all()
        carry = register(sign ^ up, "carry")
        integer = increment(m, Cat(floor, C(0, 1)) ^ sign.replicate(width), carry, f"round{lane}")
        return register(integer[:width], "integer").as_signed()

    @staticmethod
    def _shift(m, value, amount, name):
        """``value >> amount`` with bit 0 set if a one was lost, now or earlier."""
        width = len(value)
        ones = C((1 << width) - 1, width)
        shifted = Signal(width, name=name)
        lost = (value & ~(ones << amount)[:width]).any()
        m.d.comb += shifted.eq((value >> amount) | lost)
        return shifted
