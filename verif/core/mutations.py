"""``python -m verif.core.mutations``: the accelerator core broken in small ways (:mod:`verif.mutations`)."""

import sys

from verif.mutations import Mutation, run_all

MARKERS = "<!-- core mutations: python -m verif.core.mutations -->", "<!-- end of core mutations -->"
JOBS = "core/test_core.py -k any_job"
DEFECTS = "core/test_fuzz.py"
CHAINS = "core/test_core.py -k tiny-chains"
SERIAL = "core/test_fuzz.py -k serial"
MUTATIONS = [
    Mutation(
        "TLAST of results before the last token",
        "core/results.py",
        "last_piece & last_token & last_set",
        "last_piece & last_set",
        JOBS,
    ),
    Mutation(
        "results of channels past N are sent",
        "core/results.py",
        "channels > lane for",
        "channels + 1 > lane for",
        "core/test_core.py -k dense",
    ),
    Mutation(
        "a cut weight packet is good", "core/weights.py", "Mux(last, more[row], final & ~more[row])", "0", DEFECTS
    ),
    Mutation("channel header without words accepted", "core/weights.py", '(header["words"] == 0) | ', "", DEFECTS),
    Mutation(
        "wrong length of activations not seen",
        "core/activations.py",
        "wrong.eq(i.last != ends_row)",
        "wrong.eq(0)",
        DEFECTS,
    ),
    Mutation("Inf and NaN pass", "core/activations.py", "o.poison.eq(i.p.poison)", "o.poison.eq(0)", DEFECTS),
    Mutation(
        "groups of one sum are added too soon",
        "core/schedule.py",
        "Cat(C(-1, interval - 1), wait[:-1])",
        "Cat(C(-1, interval - 2), wait[:-1])",
        "core/test_schedule.py",
    ),
    Mutation(
        "a chunk overwrites one in use",
        "core/activations.py",
        "room.eq(held + units <= config.stored_units)",
        "room.eq(1)",
        CHAINS,
    ),
    Mutation(
        "chains of drained sums swapped",
        "core/tile.py",
        "chain = row % len(chains)",
        "chain = (row + 1) % len(chains)",
        CHAINS,
    ),
    Mutation(
        "bit-serial: an Inf before a group's last beat is forgotten",
        "core/bitserial.py",
        "poison.eq((poison | now) & ~self.i.p.last)",
        "poison.eq(0)",
        SERIAL,
    ),
    Mutation(
        "bit-serial: all beats of a term before the next",
        "core/parts.py",
        "plane_major=False",
        "plane_major=True",
        SERIAL,
    ),
]


if __name__ == "__main__":
    sys.exit(run_all(MUTATIONS, MARKERS))
