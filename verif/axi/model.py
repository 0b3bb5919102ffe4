"""A register map as software sees it, from what the SystemRDL file promises (:mod:`verif.axi.rdl`)."""

__all__ = ["RegisterModel"]

WINDOW = 4096


class RegisterModel:
    """State of every register after resets, writes, reads and what the hardware does.

    ``hardware`` holds what the surroundings drive: port name to value.
    """

    def __init__(self, registers: list[dict]):
        self.registers = registers
        self.hardware: dict[str, int] = {}
        self.words = {}
        for register in registers:
            for offset in range(0, register["width"] // 8, 4):
                self.words[register["address"] + offset] = (register, offset * 8)
        self.reset()

    def reset(self) -> None:
        self.state = {(r["name"], f["name"]): f["reset"] for r in self.registers for f in r["fields"]}
        self.kept = {}

    def of_kind(self, kind: str):
        """(register, field) of every field with a property, pulses and counters for instance."""
        return [(r, f) for r in self.registers for f in r["fields"] if f[kind] and not r["external"]]

    def value(self, register: dict) -> int:
        if register["external"]:
            return self.hardware.get(f"{register['name']}__value", 0)
        total = 0
        for field in register["fields"]:
            value = self.state[register["name"], field["name"]]
            if field["driven"]:
                value = self.hardware.get(f"{register['name']}__{field['name']}", 0)
            total |= (value << field["low"]) if field["readable"] else 0
        return total

    def read(self, address: int) -> tuple[int, int]:
        """Data and response; address outside the map or misaligned: 0, SLVERR."""
        if address not in self.words:
            return 0, 2
        register, shift = self.words[address]
        if shift:
            return self.kept.get(register["name"], 0), 0
        value = self.value(register)
        self.kept[register["name"]] = value >> 32
        return value & 0xFFFFFFFF, 0

    def write(self, address: int, data: int, strobes: int) -> tuple[int, set[str], bool]:
        """Response, ports of the pulses it makes, and whether a locked field refused it."""
        pulses: set[str] = set()
        refused = False
        if address not in self.words:
            return 2, pulses, refused
        register, shift = self.words[address]
        mask = sum(0xFF << 8 * lane for lane in range(4) if strobes >> lane & 1)
        for field in register["fields"]:
            key, full = (register["name"], field["name"]), (1 << field["width"]) - 1
            bits, chosen = data << shift >> field["low"] & full, mask << shift >> field["low"] & full
            if not field["writable"] or register["external"]:
                continue
            if field["lock"] and self.hardware.get(field["lock"], 0):
                refused |= bool(chosen)
            elif field["pulse"]:
                pulses |= {"__".join(key)} if bits & chosen else set()
            elif field["clears"]:
                self.state[key] &= ~(bits & chosen)
            else:
                self.state[key] = (self.state[key] & ~chosen) | (bits & chosen)
        return 0, pulses, refused

    def set_sticky(self, register: dict, field: dict, bits: int) -> None:
        self.state[register["name"], field["name"]] |= bits

    def count(self, register: dict, field: dict, step: int, times: int = 1) -> None:
        key = register["name"], field["name"]
        self.state[key] = min(self.state[key] + step * times, (1 << field["width"]) - 1)
