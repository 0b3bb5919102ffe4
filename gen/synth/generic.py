"""Text of ``generic.lib``, the project's own cell library for estimates where no real one is given.

Areas are gate equivalents (a 2-input NAND is 1), rounded from common standard-cell libraries. Delays follow logical
effort with tau = 4 ps: delay = tau * (p + C / drive) + slew / 8 with the load C in units of a minimum inverter's input
(1 fF), p the parasitic delay and an input capacitance of g * drive. An inverter driving four of its kind takes about
23 ps. They order designs; they predict no process.

The file is committed so that it can be read; write it again with
``python -c "from gen.synth.generic import liberty; print(liberty(), end='')" > gen/synth/generic.lib``.
"""

from dataclasses import dataclass

__all__ = ["liberty"]

TAU_PS = 4.0
SLEWS_PS = (4.0, 16.0, 64.0)
LOADS_FF = (0.5, 4.0, 32.0, 128.0)
# Cell area grows more slowly than drive strength: diffusion is shared.
AREA_OF_DRIVE = {1: 1.0, 2: 1.67, 4: 3.0, 8: 5.67}


@dataclass(frozen=True)
class Gate:
    """A combinational cell: area in gate equivalents, logical effort ``g`` per input, parasitic delay ``p``."""

    name: str
    area: float
    function: str
    inputs: str
    g: float
    p: float
    sense: str
    drives: tuple[int, ...] = (1, 2, 4)


NEGATIVE, POSITIVE, EITHER = "negative_unate", "positive_unate", "non_unate"
GATES = (
    Gate("INV", 0.67, "!A", "A", 1.0, 1.0, NEGATIVE, (1, 2, 4, 8)),
    Gate("BUF", 1.0, "A", "A", 1.0, 2.5, POSITIVE, (1, 2, 4, 8)),
    Gate("NAND2", 1.0, "!(A&B)", "AB", 1.33, 2.0, NEGATIVE),
    Gate("NAND3", 1.33, "!(A&B&C)", "ABC", 1.67, 3.0, NEGATIVE),
    Gate("NAND4", 1.67, "!(A&B&C&D)", "ABCD", 2.0, 4.0, NEGATIVE),
    Gate("NOR2", 1.0, "!(A|B)", "AB", 1.67, 2.0, NEGATIVE),
    Gate("NOR3", 1.33, "!(A|B|C)", "ABC", 2.33, 3.0, NEGATIVE),
    Gate("AND2", 1.33, "A&B", "AB", 1.0, 4.0, POSITIVE),
    Gate("AND3", 1.67, "A&B&C", "ABC", 1.0, 5.0, POSITIVE),
    Gate("OR2", 1.33, "A|B", "AB", 1.0, 4.5, POSITIVE),
    Gate("OR3", 1.67, "A|B|C", "ABC", 1.0, 6.0, POSITIVE),
    Gate("AOI21", 1.33, "!((A&B)|C)", "ABC", 2.0, 2.33, NEGATIVE),
    Gate("OAI21", 1.33, "!((A|B)&C)", "ABC", 2.0, 2.33, NEGATIVE),
    Gate("AOI22", 1.67, "!((A&B)|(C&D))", "ABCD", 2.0, 4.0, NEGATIVE),
    Gate("OAI22", 1.67, "!((A|B)&(C|D))", "ABCD", 2.0, 4.0, NEGATIVE),
    Gate("XOR2", 2.33, "A^B", "AB", 3.0, 4.0, EITHER),
    Gate("XNOR2", 2.33, "!(A^B)", "AB", 3.0, 4.0, EITHER),
    Gate("MUX2", 2.67, "(S&B)|(!S&A)", "ABS", 2.0, 4.5, EITHER),
)
FLIPFLOP_AREA, CLOCK_TO_OUTPUT, SETUP = 5.33, 8.0, 4.0
FLIPFLOP_DRIVES = (1, 2)


def liberty() -> str:
    """The library as Liberty text."""
    cells = [_gate(gate, drive) for gate in GATES for drive in gate.drives]
    cells += [_flipflop(drive) for drive in FLIPFLOP_DRIVES]
    slews = ", ".join(f"{slew:g}" for slew in SLEWS_PS)
    loads = ", ".join(f"{load:g}" for load in LOADS_FF)
    return f"""/* An estimate, not a process: areas in gate equivalents, nominal delays. By gen/synth/generic.py. */
library (bitmosaic_generic) {{
  delay_model : table_lookup;
  time_unit : "1ps";
  capacitive_load_unit (1, ff);
  voltage_unit : "1V";
  current_unit : "1mA";
  pulling_resistance_unit : "1kohm";
  leakage_power_unit : "1nW";
  nom_process : 1;
  nom_temperature : 25;
  nom_voltage : 1;
  input_threshold_pct_rise : 50;
  input_threshold_pct_fall : 50;
  output_threshold_pct_rise : 50;
  output_threshold_pct_fall : 50;
  slew_lower_threshold_pct_rise : 20;
  slew_lower_threshold_pct_fall : 20;
  slew_upper_threshold_pct_rise : 80;
  slew_upper_threshold_pct_fall : 80;
  lu_table_template (table) {{
    variable_1 : input_net_transition;
    variable_2 : total_output_net_capacitance;
    index_1 ("{slews}");
    index_2 ("{loads}");
  }}
{"".join(cells)}}}
"""


def _gate(gate: Gate, drive: int) -> str:
    pins = "".join(_input(pin, gate.g * drive) for pin in gate.inputs)
    arcs = "".join(_arc(pin, f"timing_sense : {gate.sense};", gate.p, drive) for pin in gate.inputs)
    return f"""  cell ({gate.name}_X{drive}) {{
    area : {gate.area * AREA_OF_DRIVE[drive]:.2f};
{pins}    pin (Y) {{
      direction : output;
      max_capacitance : {32 * drive};
      function : "{gate.function}";
{arcs}    }}
  }}
"""


def _flipflop(drive: int) -> str:
    setup = SETUP * TAU_PS
    checks = "".join(
        f"""      timing () {{
        related_pin : "CK";
        timing_type : {kind}_rising;
        rise_constraint (scalar) {{ values ("{time:g}"); }}
        fall_constraint (scalar) {{ values ("{time:g}"); }}
      }}
"""
        for kind, time in (("setup", setup), ("hold", 0.0))
    )
    return f"""  cell (DFF_X{drive}) {{
    area : {FLIPFLOP_AREA + AREA_OF_DRIVE[drive] - 1:.2f};
    ff (IQ, IQN) {{
      clocked_on : "CK";
      next_state : "D";
    }}
    pin (CK) {{
      direction : input;
      clock : true;
      capacitance : 1;
    }}
    pin (D) {{
      direction : input;
      capacitance : 1;
{checks}    }}
    pin (Q) {{
      direction : output;
      max_capacitance : {32 * drive};
      function : "IQ";
{_arc("CK", "timing_type : rising_edge;", CLOCK_TO_OUTPUT, drive)}    }}
  }}
"""


def _input(pin: str, capacitance: float) -> str:
    return f"    pin ({pin}) {{ direction : input; capacitance : {capacitance:.2f}; }}\n"


def _arc(pin: str, kind: str, parasitic: float, drive: int) -> str:
    def table(value) -> str:
        rows = (", ".join(f"{value(slew, load):.2f}" for load in LOADS_FF) for slew in SLEWS_PS)
        return ", ".join(f'"{row}"' for row in rows)

    delay = table(lambda slew, load: TAU_PS * (parasitic + load / drive) + slew / 8)
    slew = table(lambda _slew, load: 1.5 * TAU_PS * (parasitic / 2 + load / drive))
    return f"""      timing () {{
        related_pin : "{pin}";
        {kind}
        cell_rise (table) {{ values ({delay}); }}
        cell_fall (table) {{ values ({delay}); }}
        rise_transition (table) {{ values ({slew}); }}
        fall_transition (table) {{ values ({slew}); }}
      }}
"""
