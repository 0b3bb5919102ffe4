"""``python -m verif.attention.mutations``: attention from codes broken in small ways (:mod:`verif.mutations`)."""

import sys

from verif.mutations import Mutation, run_all

MARKERS = "<!-- attention mutations: python -m verif.attention.mutations -->", "<!-- end of attention mutations -->"
SCORES, VALUES = "attention/test_scores.py", "attention/test_value.py"
MUTATIONS = [
    Mutation("codes' signs swapped", "attention/dot.py", "negative.eq(~first)", "negative.eq(first)", SCORES),
    Mutation("digit planes not shifted", "attention/dot.py", "Cat(C(0, 2), half)[:width]", "half", SCORES),
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
]


if __name__ == "__main__":
    sys.exit(run_all(MUTATIONS, MARKERS))
