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
        "a list's mark outlives it", "attention/value_out.py", "first.eq(1), marked.eq(0)]", "first.eq(1)]", VALUES
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
