"""A register map as hardware behind AXI4-Lite."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.axi.definitions import ADDRESS_BITS, FieldKind, Register, RegisterField, RegisterMap
from hw.axi.lite import AxiLite, AxiLiteSubordinate
from spec import checks

__all__ = ["AxiLiteRegisters"]


def _field_member(field: RegisterField):
    """How a field shows itself to the hardware around the block; None for a constant."""
    match field.kind:
        case FieldKind.CONSTANT:
            return None
        case FieldKind.STATUS:
            return In(field.width)
        case FieldKind.CONTROL | FieldKind.PULSE:
            return Out(field.width)
        case FieldKind.STICKY:
            return Out(wiring.Signature({"set": In(field.width), "value": Out(field.width)}))
        case FieldKind.COUNTER:
            return Out(wiring.Signature({"increment": In(field.increment_bits), "clear": In(1)}))


def _register_member(register: Register):
    if register.external:
        ports = {"write": Out(1), "data": Out(32), "strobes": Out(4), "value": In(register.width)}
    else:
        ports = {field.name.lower(): member for field in register.fields if (member := _field_member(field))}
    return Out(wiring.Signature(ports)) if ports else None


class AxiLiteRegisters(wiring.Component):
    """The registers of a :class:`hw.axi.definitions.RegisterMap`, served over AXI4-Lite.

    For each register the component has a member of its name (``special_3`` for ``SPECIAL[3]``), which holds one member
    per field:

    =========  ======================================================================================================
    kind       member
    =========  ======================================================================================================
    STATUS     In, read as it is in the cycle of the access
    CONTROL    Out, the register
    PULSE      Out, high for the cycle after the write
    STICKY     ``set`` In, bits to set; ``value`` Out, the register
    COUNTER    ``increment`` In, added in each cycle; ``clear`` In: to this cycle's increment alone
    EXTERNAL   of the register: ``write`` Out (one cycle), ``data``, ``strobes`` Out (its bytes), ``value`` In
    =========  ======================================================================================================

    Unmapped and misaligned addresses are answered with SLVERR. Writes change the bytes that their strobes name; writes
    to read-only fields and undefined bits change nothing, and undefined bits read as 0. Latency, throughput:
    :class:`hw.axi.lite.AxiLiteSubordinate`.

    Parameters
    ----------
    registers : RegisterMap

    Members
    -------
    bus : AxiLite, In
    refused : Out
        One cycle: a write found the signal high that locks one of the fields it names (``swwel``), and left it.
    locked : In
        One member for each of ``registers.locks``, by its name: its fields refuse writes while it is high.
    """

    def __init__(self, registers: RegisterMap):
        checks.instance("registers", registers, RegisterMap)
        self.registers = registers
        members = {register.member: _register_member(register) for register in registers.registers}
        super().__init__(
            {
                "bus": In(AxiLite(ADDRESS_BITS)),
                "refused": Out(1),
                **{lock: In(1) for lock in registers.locks},
                **{name: member for name, member in members.items() if member is not None},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.subordinate = subordinate = AxiLiteSubordinate(ADDRESS_BITS)
        wiring.connect(m, wiring.flipped(self.bus), subordinate.bus)
        access = subordinate.access
        words = {}  # word address to its value for reads
        written = {}  # word address to its write strobe
        refusals = []

        for register in self.registers.registers:
            first = register.address // 4
            strobe = Signal(name=f"write_{register.member}")
            for offset in range(register.width // 32):
                written[first + offset] = strobe
            bits = Cat(self._field(m, register, field, strobe, access, refusals) for field in self._spread(register))
            if register.external:
                port = getattr(self, register.member)
                m.d.comb += [
                    port.write.eq(strobe),
                    port.data.eq(access.write_data),
                    port.strobes.eq(access.write_strobes),
                ]
                bits = port.value
            value = Signal(register.width, name=f"value_{register.member}")
            m.d.comb += value.eq(bits)
            words[first] = value[:32]
            if register.width > 32:
                kept = Signal(register.width - 32, name=f"kept_{register.member}")
                with m.If(access.read & (access.read_address == first)):
                    m.d.sync += kept.eq(value[32:])
                words[first + 1] = kept

        with m.Switch(access.write_address):
            for address, strobe in written.items():
                with m.Case(address):
                    m.d.comb += strobe.eq(access.write)
            with m.Default():
                m.d.comb += access.write_error.eq(1)
        with m.Switch(access.read_address):
            for address, word in words.items():
                with m.Case(address):
                    m.d.comb += access.read_data.eq(word)
            with m.Default():
                m.d.comb += access.read_error.eq(1)
        m.d.comb += self.refused.eq(Cat(refusals).any())
        return m

    @staticmethod
    def _spread(register: Register):
        """The fields from bit 0 upwards, with widths of undefined bits between them."""
        position = 0
        for field in sorted(register.fields, key=lambda field: field.low):
            if field.low > position:
                yield field.low - position
            yield field
            position = field.low + field.width

    def _field(self, m, register, field, strobe, access, refusals):
        """Make the field and return what it reads as."""
        if isinstance(field, int):
            return Const(0, field)
        if field.kind is FieldKind.CONSTANT:
            return Const(field.reset, field.width)
        if field.kind is FieldKind.EXTERNAL:
            return Const(0, field.width)
        port = getattr(getattr(self, register.member), field.name.lower())
        if field.kind is FieldKind.STATUS:
            return port
        name = f"{register.member}_{field.name.lower()}"
        held = Signal(field.width, name=name, init=field.reset)
        where = slice(field.low, field.low + field.width)
        bytes_written = Cat(strobe.replicate(8) for strobe in access.write_strobes)
        bits = Mux(strobe, bytes_written[where], 0) if register.width == 32 else None
        data = access.write_data[where] if register.width == 32 else None
        match field.kind:
            case FieldKind.CONTROL:
                m.d.comb += port.eq(held)
                allowed = 1
                if field.locked_by:
                    lock = getattr(self, field.locked_by)
                    refusals.append(lock & bits.any())
                    allowed = ~lock
                with m.If(allowed):
                    m.d.sync += held.eq((held & ~bits) | (data & bits))
                return held
            case FieldKind.PULSE:
                m.d.comb += port.eq(held)
                m.d.sync += held.eq(data & bits)
                return Const(0, field.width)
            case FieldKind.STICKY:
                m.d.comb += port.value.eq(held)
                m.d.sync += held.eq((held & ~(data & bits)) | port.set)
                return held
            case FieldKind.COUNTER:
                total = Signal(field.width + 1, name=f"{name}_total")
                m.d.comb += total.eq(Mux(port.clear, 0, held) + port.increment)
                m.d.sync += held.eq(Mux(total[-1], (1 << field.width) - 1, total))
                return held
