"""``python -m verif.attention.mutations``: attention from codes broken in small ways (:mod:`verif.mutations`)."""

import sys

from verif.mutations import Mutation, run_all

MARKERS = "<!-- attention mutations: python -m verif.attention.mutations -->", "<!-- end of attention mutations -->"
SCORES, VALUES, AXI = "attention/test_scores.py", "attention/test_value.py", "attention/test_axi.py"
MUTATIONS = [
    Mutation("codes' signs swapped", "attention/dot.py", "negative.eq(~first)", "negative.eq(first)", SCORES),
    Mutation("digit planes not shifted", "attention/dot.py", "Cat(C(0, 2), held)[:width]", "held", SCORES),
    Mutation("both sets of tables are one", "attention/fold.py", "which.eq(~which)", "which.eq(which)", SCORES),
    Mutation("a used up beat stays", "attention/rows.py", "self.refill & used_up", "self.refill & self.skip", SCORES),
    Mutation(
        "planes of exact values worth the same",
        "attention/channels.py",
        "Mux(now.exact, upper << 4, upper)",
        "upper",
        VALUES,
    ),
    Mutation("a bad scale is not marked", "attention/score_out.py", "about.marked | bad,", "about.marked,", SCORES),
    Mutation(
        "bad packets do not mark their list",
        "attention/value_out.py",
        "marked.eq(marked | (verdict.error != 0))",
        "marked.eq(marked)",
        VALUES,
    ),
    Mutation(
        "a list's mark outlives it",
        "attention/value_out.py",
        "left_marked.eq(marked), marked.eq(0),",
        "left_marked.eq(marked),",
        VALUES,
    ),
    Mutation(
        "a result beyond FP16 does not mark its list",
        "attention/value_out.py",
        "left_marked.eq(left_marked | beyond)",
        "left_marked.eq(left_marked)",
        VALUES,
    ),
    Mutation("sums on the way are results", "attention/value_out.py", "(second | ~affine)", "1", VALUES),
    Mutation(
        "a list's results do not wait for those before",
        "attention/value_out.py",
        "self.jobs.valid & ~(job.final & leaving)",
        "self.jobs.valid",
        VALUES,
    ),
    Mutation(
        "rows that a batch has not got count", "attention/channels.py", "(now.filled >= r)", "(now.filled >= 0)", VALUES
    ),
    Mutation(
        "no carry to the sums' upper halves", "attention/channels.py", "Cat(total[-1],", "Cat(total[-1] & 0,", VALUES
    ),
    Mutation("weights overwrite those in use", "attention/weights.py", "full | ~groups.w_rdy", "~groups.w_rdy", VALUES),
    Mutation(
        "bits lost below are not sticky",
        "attention/float32.py",
        "gone.eq(lost | (gap[k] & aligned[:step].any()))",
        "gone.eq(lost)",
        "attention/test_float32.py",
    ),
    Mutation(
        "TUSER of every beat counts", "axi/attention.py", "Mux(first, packets.p.user, kept)", "packets.p.user", AXI
    ),
    Mutation("HEAD_DIM changes under way", "axi/value_core.py", "m.If(fits & ~busy)", "m.If(fits)", AXI),
    Mutation(
        "the mask's count is not checked",
        "attention/query.py",
        "!= Cat(C(0, 3), groups0)",
        "!= stored[0] + ~second",
        AXI,
    ),
    Mutation(
        "rfft's rotations round down",
        "attention/query_rfft.py",
        "(total >> fraction) + up",
        "total >> fraction",
        SCORES,
    ),
    Mutation("reserved bits of a query's header pass", "attention/query_packet.py", "word.data[used:].any()", "0", AXI),
]


if __name__ == "__main__":
    sys.exit(run_all(MUTATIONS, MARKERS))
