"""``python -m verif.bitserial.mutations``: the weight path broken in many small ways (:mod:`verif.mutations`)."""

import sys

from verif.mutations import Mutation, run_all

MARKERS = "<!-- mutations: python -m verif.bitserial.mutations -->", "<!-- end of mutations -->"
MUTATIONS = [
    Mutation(
        "subnormals count as exponent 0", "pe.py", "act.exponent[0] | ~normal", "act.exponent[0]", "weights/test_pe.py"
    ),
    Mutation("zero weights join the largest exponent", "pe.py", "term.man & (normal", "(normal", "weights/test_pe.py"),
    Mutation(
        "far lanes wrap instead of vanishing",
        "pe.py",
        "gap[:4] | gap[4:].any().replicate(4)",
        "gap[:4]",
        "weights/test_pe.py",
    ),
    Mutation(
        "floor instead of rounding toward zero",
        "pe.py",
        "carry.eq(sign & (far |",
        "carry.eq(0 & (far |",
        "weights/test_pe.py",
    ),
    Mutation(
        "pending carry forgotten",
        "pe.py",
        "old_carry = old_carry | acc.carry",
        "old_carry = old_carry",
        "weights/test_pe.py",
    ),
    Mutation("nearest, ties up", "pe.py", "guard & (sticky | mantissa[0])", "guard", "weights/test_pe.py"),
    Mutation(
        "accumulator kept across groups",
        "pe.py",
        "acc.eq(Mux(last_now, 0, updated.as_value()))",
        "acc.eq(updated)",
        "weights/test_pe.py",
    ),
    Mutation(
        "scaling factor's digits reversed",
        "dequantizer.py",
        "low.eq(self.scale)",
        "low.eq(self.scale[::-1])",
        "weights/test_dequantizer.py",
    ),
    Mutation(
        "special value's sign lost", "decoder.py", "sign.eq(special.sign)", "sign.eq(0)", "weights/test_decoder.py"
    ),
    Mutation(
        "ternary 0b10 accepted",
        "decoder.py",
        "reserved.eq(code[:2] == 0b10)",
        "reserved.eq(0)",
        "weights/test_decoder.py",
    ),
    Mutation(
        "refused special value stored",
        "special_values.py",
        "self.i.valid & allowed)",
        "self.i.valid)",
        "weights/test_special_values.py",
    ),
    Mutation(
        "parity not checked", "unpacker.py", "group_last & parity_now", "group_last & 0", "weights/test_unpacker.py"
    ),
    Mutation(
        "packet cut at a beat's end goes on",
        "unpacker.py",
        "complete & (end == here) & ~row_last",
        "0",
        "weights/test_unpacker.py",
    ),
    Mutation("short flag not checked", "unpacker.py", "current.short != is_short", "0", "weights/test_unpacker.py"),
    Mutation(
        "lanes past the row used",
        "unpacker.py",
        "mask[lane].eq(left > lane)",
        "mask[lane].eq(1)",
        "weights/test_unpacker.py",
    ),
    Mutation(
        "sticky bit lost in FP32 addition", "fp32.py", "two.eq(aligned | sticky)", "two.eq(aligned)", "test_fp32.py"
    ),
    Mutation("negative zero", "fp32.py", "sign & total.any()", "sign", "test_fp32.py"),
    Mutation(
        "new row adds to the old",
        "accumulator.py",
        "Mux(first, 0, read.data.as_value())",
        "read.data.as_value()",
        "weights/test_accumulator.py",
    ),
    Mutation(
        "marked result keeps its sum",
        "accumulator.py",
        "Mux(done.error, C(CANONICAL_NAN, 32), adder.o.as_value())",
        "adder.o.as_value()",
        "weights/test_accumulator.py",
    ),
    Mutation(
        "Inf and NaN pass",
        "column_pe.py",
        "lane.exponent.all() for",
        "0 & lane.exponent.all() for",
        "weights/test_column.py -k tiny",
    ),
    Mutation(
        "Inf in unused lanes poisons",
        "column_pe.py",
        "for lane in self.activation.lanes) & mask",
        "for lane in self.activation.lanes)",
        "weights/test_column.py -k tiny",
    ),
    Mutation(
        "activation length not checked",
        "column_pe.py",
        "self.activation.last != beat.row_last, WeightError",
        "0, WeightError",
        "weights/test_column.py -k tiny",
    ),
    Mutation(
        "errors leak into the next row",
        "column_pe.py",
        "            m.d.sync += row_errors.eq(0)",
        "            m.d.sync += row_errors.eq(row_errors)",
        "weights/test_column.py -k tiny",
    ),
    Mutation(
        "groups end too close together",
        "column_pe.py",
        "distance.eq(config.group_interval - 1)",
        "distance.eq(0)",
        "weights/test_column.py -k odd",
    ),
    Mutation(
        "special values written within a packet",
        "column.py",
        "self.special.valid & ~within",
        "self.special.valid",
        "weights/test_column_limits.py -k special",
    ),
    Mutation(
        "an idle cycle after every activation beat",
        "column.py",
        "(~held | advance) & ~hold_back",
        "~held & ~hold_back",
        "weights/test_column.py -k tiny",
    ),
    Mutation(
        "counter wraps",
        "column.py",
        "Mux(total[-1], 0xFFFF, total[:16])",
        "total[:16]",
        "weights/test_column_limits.py -k counter",
    ),
    Mutation(
        "results without room",
        "accumulator.py",
        "self.room.eq(rows <= pes)",
        "self.room.eq(1)",
        "weights/test_column_limits.py -k nobody",
    ),
]


if __name__ == "__main__":
    sys.exit(run_all(MUTATIONS, MARKERS))
