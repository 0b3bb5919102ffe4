"""Tables of sums of four channels, as the dot product wants them."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import ripple_sum
from hw.attention.score.dot import QUAD, TableWrites
from spec.attention import AttentionConfig

__all__ = ["TableBuilder"]


class TableBuilder(wiring.Component):
    """Entries of each quad of channels, two per cycle, once its last channel has come: while the next four come.

    Members
    -------
    valid, place, z : In
        A channel, one per cycle; a quad's in order.
    set : In
        Of tables.
    tables : TableWrites, Out
    busy : Out
        Entries are written.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "valid": In(1),
                "place": In(range(config.channels + 1)),
                "z": In(signed(config.fold_bits)),
                "set": In(1),
                "tables": Out(TableWrites(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.config.fold_bits
        wide = signed(bits + 2)

        def add(a, b, name, carry=None):
            """Signed, modulo 2**(bits + 2)."""
            a, b = (Cat(x, x[-1].replicate(bits + 2))[: bits + 2] for x in (a, b))
            return ripple_sum(m, a, b, bits + 2, name, carry)

        z, quad = self.z, self.place[: QUAD.bit_length() - 1]
        total = Signal(wide, reset_less=True)
        gathered = [Signal(signed(bits), name=f"gathered{k}", reset_less=True) for k in (1, 2)]
        with m.If(self.valid):
            m.d.sync += total.eq(add(Mux(quad == 0, 0, total).as_signed(), z, "gathered_sum"))
            for k, one in enumerate(gathered, 1):
                with m.If(quad == k):
                    m.d.sync += one.eq(z)
        # In the order of a Gray code: the sign of one channel turns from entry to entry.
        entry_sum = Signal(wide, reset_less=True)
        first, second, last = (Signal(signed(bits), name=f"turned{k}", reset_less=True) for k in (1, 2, 3))
        entry = Signal(QUAD - 2)
        entries = self.tables.entries
        number = Signal.like(entries.quad, reset_less=True)
        turned = Signal(signed(bits))
        following = Signal(wide)
        m.d.comb += [
            self.tables.valid.eq(self.busy),
            entries.entry.eq(entry ^ (entry >> 1)),
            entries.set.eq(self.set),
            entries.quad.eq(number),
            entries.plus.eq(add(entry_sum, last, "plus")),
            entries.minus.eq(add(entry_sum, ~last, "minus", C(1, 1))),
            turned.eq(Mux(entry[0], second, first)),
            # Minus twice the channel where its sign becomes negative.
            following.eq(
                add(entry_sum, Cat(C(0, 1), turned) ^ (~entry[1]).replicate(bits + 1), "following", ~entry[1])
            ),
        ]
        with m.If(self.busy):
            m.d.sync += [entry.eq(entry + 1), entry_sum.eq(following)]
            with m.If(entry.all()):
                m.d.sync += self.busy.eq(0)
        with m.If(self.valid & quad.all()):
            m.d.sync += [first.eq(gathered[0]), second.eq(gathered[1]), last.eq(z), entry_sum.eq(total)]
            m.d.sync += [number.eq(self.place >> QUAD.bit_length() - 1), entry.eq(0), self.busy.eq(1)]
        return m
