"""Proofs, by induction, of what must hold in every state: on the emitted Verilog, by Yosys' own SAT solver."""

import re
from pathlib import Path

import pytest

from gen.verilog import to_verilog
from gen.yosys import YosysError, run_yosys
from hw.attention.packets import PacketFront
from hw.kv.packet.front import BlockFront
from hw.kv.packet.trits import TritDecoder
from hw.streams.skid_buffer import SkidBuffer
from spec.attention import AttentionConfig
from spec.kv_config import KvEngineConfig

FORMAL = Path(__file__).with_name("formal")
BLOCKS = {
    "skid_buffer": lambda: SkidBuffer(4),
    "trit_decoder": TritDecoder,
    "packet_front": lambda: PacketFront(AttentionConfig()),
    "block_front": lambda: BlockFront(KvEngineConfig(lanes=16)),
}
INSIDE = {
    "skid_buffer": {"skid": "dut.skid"},
    "packet_front": {"state": "dut.fsm_state", "upper": "dut.upper"},
    "block_front": {"state": "dut.fsm_state", "cut": "dut.cut", "sealed": "dut.sealed"},
}
"""Wires of the claims that are connected to registers of the design."""
BROKEN = {
    "skid_buffer": (r"skid_full <= .*;", "skid_full <= 1'h0;"),
    "trit_decoder": (r"8'hf3", "8'hf2"),
    # Another packet is taken on although the one before is not opened.
    "block_front": (r"(?<=assign)(.*)~ sealed;", r"\1 1'h1;"),
    # The header's word is taken although nobody took its entry.
    "packet_front": (r"(?<=assign)(.*)\bentries__ready\b", r"\1 1'h1"),
}
"""A change of the Verilog that a proof must not survive."""


def prove(text: str, name: str, folder: Path) -> str:
    """Run the proof; returns the log. Raises YosysError if an assertion can fail."""
    (folder / "design.v").write_text(text)
    (folder / "claims.v").write_text((FORMAL / f"{name}.v").read_text())
    # Registers start from anything: the claims assume a reset first.
    how = "-set-assumes -tempinduct -seq 1 -maxsteps 3 -timeout 120" if "clk" in text else ""
    return run_yosys(
        [
            "read_verilog design.v",
            "read_verilog -sv -formal claims.v",
            "hierarchy -top claims",
            "proc",
            "flatten",
            "memory",
            *[f"connect -set {outer} {inner}" for outer, inner in INSIDE.get(name, {}).items()],
            "opt",
            "async2sync",
            "chformal -lower",
            "opt_clean",
            "select -assert-min 1 t:$assert",
            f"sat -verify -prove-asserts {how} claims",
        ],
        cwd=folder,
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_proof(name, tmp_path):
    log = prove(to_verilog(BLOCKS[name](), name)[0], name, tmp_path)
    assert re.search(r"SAT proof finished - no model found: SUCCESS|Induction step proven: SUCCESS", log), log[-2000:]


@pytest.mark.parametrize("name", BLOCKS)
def test_proof_notices(name, tmp_path):
    old, new = BROKEN[name]
    text = to_verilog(BLOCKS[name](), name)[0]
    changed = re.sub(old, new, text)
    assert changed != text
    with pytest.raises(YosysError, match="proof did fail"):
        prove(changed, name, tmp_path)
