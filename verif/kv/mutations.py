"""``python -m verif.kv.mutations``: the KV engine broken in many small ways (:mod:`verif.mutations`).

With ``--minutes N`` no mutation is begun after N minutes; those that are left are for another run.
"""

import argparse
import math
import sys

from verif.mutations import Mutation, run_all

MARKERS = "<!-- mutations: python -m verif.kv.mutations -->", "<!-- end of mutations -->"
LAYOUTS = "kv/test_formats.py::test_every_layout"
SPLITS = "kv/test_order.py::test_every_split"
FORGETS = "kv/test_order.py::test_a_centre_has_a_size_and_a_reset_forgets_it[lanes16]"
CENTRES = "kv/test_order.py::test_bad_centres_leave_the_old_one[lanes16]"
DEFECTS = "kv/test_errors.py::test_every_defect[lanes8]"
MUTATIONS = [
    Mutation("byte 243 accepted", "kv/trits.py", ">= 3**TRITS_PER_BYTE", "> 3**TRITS_PER_BYTE", "kv/test_formal.py"),
    Mutation(
        "a digit of 2 taken off once",
        "kv/trits.py",
        "Mux(twice[-1], twice, Mux",
        "Mux(twice[-1], once, Mux",
        "kv/test_formal.py",
    ),
    Mutation(
        "a packet that ends with its header is no error",
        "kv/parser.py",
        "Mux(end & (error == 0), KvError.SHORT, error)",
        "error",
        "kv/test_formal.py",
    ),
    Mutation(
        "a valid that waits for ready", "stream.py", "self.o.ready | ~o_valid", "self.o.ready", "kv/test_formal.py"
    ),
    Mutation("version not checked", "kv/header.py", "m.If(header.version != VERSION)", "m.If(0)", DEFECTS),
    Mutation(
        "more rows than the bitmap has",
        "kv/header.py",
        "(header.span == 1) & header.rows[6]",
        "0",
        DEFECTS,
    ),
    Mutation(
        "ones of the mask not counted",
        "kv/front.py",
        "m.If(~counter.complete)",
        "m.If(0)",
        DEFECTS,
    ),
    Mutation("more ones than rows", "kv/front.py", "m.If(counter.found & counter.complete)", "m.If(0)", DEFECTS),
    Mutation("a packet of a header alone", "kv/front.py", "m.Elif(cut)", "m.Elif(0)", DEFECTS),
    Mutation(
        "metadata that end the packet",
        "kv/front.py",
        "m.Elif(step & end):\n                    stop(KvError.SHORT)\n                with m.Elif(loader.done",
        "m.Elif(0):\n                    stop(KvError.SHORT)\n                with m.Elif(loader.done",
        DEFECTS,
    ),
    Mutation("header's check not seen", "kv/front.py", "m.Elif(check != HEADER_CHECK)", "m.Elif(0)", DEFECTS),
    Mutation(
        "a record store that overflows",
        "kv/store.py",
        "(here[:bits] != done[:bits]) | (here[bits] == done[bits])",
        "1",
        "kv/test_formats.py::test_every_layout[lanes16]",
    ),
    Mutation(
        "an even channel's minimum of the next slice alone",
        "kv/records.py",
        "record.low.eq(Mux(second, piece[:8], piece[8:]))",
        "record.low.eq(piece[:8])",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "negative scale accepted",
        "kv/scales.py",
        "raw[15] | (field == 31)",
        "field == 31",
        DEFECTS,
    ),
    Mutation(
        "the next block's header before the last beat has left",
        "kv/sequencer.py",
        'm.State("LAST"):\n                with m.If(room):',
        'm.State("LAST"):\n                with m.If(1):',
        "kv/test_errors.py -k stalled",
    ),
    Mutation(
        "a format that the build lacks",
        "kv/header.py",
        "_any(header.format, kinds),",
        "_any(header.format, (0, 7)),",
        "kv/test_few_formats.py",
    ),
    Mutation("padding of trits of any value but 3", "kv/rows.py", "== 1 for", "!= 3 for", DEFECTS),
    Mutation(
        "last error kept, not the first",
        "kv/errors.py",
        "(self.error == 0) | self.clear",
        "1",
        "kv/test_errors.py -k counter",
    ),
    Mutation("counter wraps", "kv/errors.py", "m.If(~following[-1])", "m.If(1)", "kv/test_errors.py -k counter"),
    Mutation(
        "largest value one binade late", "kv/normalize.py", "exponent[5] | exponent[:5].all()", "exponent[5]", DEFECTS
    ),
    Mutation("value's ties up", "kv/normalize.py", "half & (rest | top[0])", "half", f"{LAYOUTS}[lanes8]"),
    Mutation("subnormals shifted too far", "kv/normalize.py", " & left[k:].any()", "", f"{LAYOUTS}[lanes8]"),
    Mutation("integer's ties up", "kv/fp16.py", "half & (rest.any() | fraction[0])", "half", f"{LAYOUTS}[lanes8]"),
    Mutation(
        "sticky bit of the last shift only",
        "kv/sums.py",
        "sticky = sticky | lost",
        "sticky = lost",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation("negative zero", "kv/values.py", "Cat(bits, sign & (bits != 0))", "Cat(bits, sign)", f"{LAYOUTS}[lanes8]"),
    Mutation(
        "a multiple of zero pushes the minimum out",
        "kv/values.py",
        "~(above | zero)",
        "~above",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation("6-bit scales of exponent 3", "kv/scales.py", "leading << 2", "leading << 3", f"{LAYOUTS}[lanes8]"),
    Mutation(
        "bitmap's pairs of tokens swapped",
        "kv/counting.py",
        "Cat(~pair[0], count[1:])",
        "Cat(pair[0], count[1:])",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "invalid byte in the next beat",
        "kv/rows.py",
        "(p + n) * per_unit",
        "(p + n) * per_unit - TRITS_PER_BYTE",
        "kv/test_formats.py::test_every_byte_of_trits[lanes8]",
    ),
    Mutation(
        "Walsh-Hadamard difference of a beat and itself",
        "kv/wht_beats.py",
        "Mux(subtract_next, oldest, own)",
        "Mux(subtract_next, own, own)",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "exponent does not take back doublings of Walsh-Hadamard stages",
        "kv/wht.py",
        "plan.exponent[k // 16] + active",
        "plan.exponent[k // 16] + guard",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "negative integers rounded as their one's complement",
        "kv/fp16.py",
        "half | (rest.all() & fraction[0])",
        "half & (rest.any() | fraction[0])",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "subnormals shifted as if normal",
        "kv/fp16.py",
        "(self.code == lowest - k if k <= lowest else 0)",
        "0",
        f"{LAYOUTS}[lanes8]",
    ),
    Mutation(
        "a coefficient's mark stays with the first of two beats",
        "kv/wht_beats.py",
        "first.data.mark | second.data.mark",
        "first.data.mark",
        "kv/test_errors.py::test_every_defect[lanes4]",
    ),
    Mutation(
        "R1 and R2 floor",
        "kv/rotate.py",
        "shared.add_constant(half)",
        "shared.add_constant(0)",
        f"{LAYOUTS}[lanes4]",
    ),
    Mutation(
        "imaginary part conjugated at n = 4",
        "kv/rfft_pipeline.py",
        "total[1] - words.d",
        "total[1] + words.d + 0",
        f"{LAYOUTS}[lanes4]",
    ),
    Mutation(
        "four cycles for every channel",
        "kv/values.py",
        "(code[0] & one_bit) | (code[1] & (ternary | code[0]))",
        "code.all()",
        "kv/test_rates.py::test_rates[lanes8]",
    ),
    Mutation(
        "a half's window of banks not past the last bank",
        "kv/merge.py",
        "exceeds(low, k) ^ round_",
        "exceeds(low, k)",
        f"{SPLITS}[lanes8]",
    ),
    Mutation(
        "segment 0 of a beat in one row",
        "kv/order.py",
        "Mux(reached, row, following)",
        "row",
        f"{SPLITS}[lanes8]",
    ),
    Mutation(
        "segment 1 stored without what fills no beat of segment 0",
        "kv/order.py",
        "Mux(exceeds(moved, group), upper, lower)",
        "lower",
        f"{SPLITS}[lanes16]",
    ),
    Mutation(
        "a token overwritten while it leaves",
        "kv/order.py",
        "self.i.ready.eq(~whole[fill])",
        "self.i.ready.eq(1)",
        f"{SPLITS}[lanes8]",
    ),
    Mutation("no marks in channel order", "kv/order.py", "data.marked.eq(tag.marked)", "data.marked.eq(0)", DEFECTS),
    Mutation(
        "lanes of a token's last beat",
        "kv/order.py",
        "Mux(token_last, read.data.groups, all_groups)",
        "all_groups",
        f"{SPLITS}[lanes16]",
    ),
    Mutation(
        "a queue of masks that overflows",
        "kv/masks.py",
        "(come[:bits] != leave[:bits]) | (come[bits] == leave[bits])",
        "1",
        "kv/test_order.py::test_blocks_pile_up[lanes8]",
    ),
    Mutation(
        "masks of single segments",
        "kv/masks.py",
        "Mux(exit_.data.split, found, (1 << lanes) - 1)",
        "found",
        f"{SPLITS}[lanes8]",
    ),
    Mutation(
        "a centre that changes under the blocks on their way",
        "kv/front.py",
        "centre & ~self.drained if self.config.centre else 0",
        "0",
        "kv/test_order.py::test_centre[lanes16]",
    ),
    Mutation("a long CENTRE taken", "kv/front.py", "self.keep_centre.eq(end)", "self.keep_centre.eq(1)", CENTRES),
    Mutation("negative centres refused", "kv/records.py", "piece[10:15].all(), bad", "bad, bad", CENTRES),
    Mutation(
        "a centre of any size",
        "kv/centre.py",
        "loaded & (size == self.channels)",
        "loaded",
        FORGETS,
    ),
    Mutation(
        "a centre that a reset does not forget",
        "kv/centre.py",
        "loaded & (size == self.channels)",
        "size == self.channels",
        FORGETS,
    ),
    Mutation(
        "the new centre over the old one",
        "kv/centre.py",
        "[: len(self.beat)], ~used)",
        "[: len(self.beat)], used)",
        CENTRES,
    ),
    Mutation(
        "an overflow of a centre forgotten after its beat",
        "kv/centre.py",
        "tag.marked | self.overflow | spoiled",
        "tag.marked | self.overflow",
        "kv/test_order.py::test_centre[lanes16]",
    ),
    Mutation(
        "an overflow in lanes that do not exist",
        "kv/centre.py",
        "adder.beyond & tag.groups[k // 8]",
        "adder.beyond",
        "kv/test_order.py::test_centre[lanes16]",
    ),
    Mutation(
        "a centre's sum with one guard bit less",
        "kv/fp16_adder.py",
        "GUARD = 3",
        "GUARD = 2",
        "kv/test_fp16_sums.py::test_adder",
    ),
    Mutation(
        "a product of zero pushes the addend out",
        "kv/multiply_add.py",
        "above & significands[0].any() & significands[1].any()",
        "above",
        "kv/test_fp16_sums.py::test_multiply_add",
    ),
    Mutation(
        "TLAST for the end of a token",
        "kv/axi.py",
        '"token_last": tag.token_last',
        '"token_last": tag.last',
        "kv/test_axi.py",
    ),
]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=math.inf)
    sys.exit(run_all(MUTATIONS, MARKERS, "docs/kv-verification.md", parser.parse_args().minutes))
