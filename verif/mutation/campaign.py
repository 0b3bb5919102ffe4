"""A block's mutants from the netlist to a verdict each; what was found out is kept and not done again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from shell.output import write_file
from shell.processes import parallel
from verif.mutation.equivalence import Prover
from verif.mutation.mutants import Mutant, draw, insert
from verif.mutation.netlist import flatten, to_verilog
from verif.mutation.replay import compile_replay, run_replay, write_layout
from verif.mutation.traces import Ports

__all__ = ["Campaign"]

BATCH = 250
"""Mutants per simulator."""
ALIVE = ("silent", "timing")


class Campaign:
    """Mutants of one Verilog under given traces (as :meth:`verif.mutation.traces.Trace.write` leaves them).

    ``outcomes``: mutant's id -> how it was killed (``value``, ``hang``, ``register``...), or ``timing``, ``silent``,
    ``equivalent``.
    """

    def __init__(self, verilog: str, ports: Ports, traces: Sequence[Path], home: Path):
        self.verilog, self.ports, self.traces = verilog, ports, list(traces)
        digest = sha256(verilog.encode())
        for path in self.traces:
            digest.update(path.read_bytes())
        self.home = home / digest.hexdigest()[:16]
        self.home.mkdir(parents=True, exist_ok=True)
        self.kept = self.home / "outcomes.json"
        self.outcomes: dict[str, str] = json.loads(self.kept.read_text()) if self.kept.exists() else {}
        self.netlist = flatten(verilog, ports.top)
        self.said: list[str] = []

    def _keep(self, mutant: Mutant, outcome: str) -> None:
        self.outcomes[mutant.id] = outcome
        write_file(self.kept, json.dumps(self.outcomes, indent=1))

    def draw(self, count: int, seed: int) -> list[Mutant]:
        return draw(self.netlist, count, seed)

    def simulate(self, mutants: Sequence[Mutant], jobs: int, told: Callable[[str], None] = lambda _: None) -> None:
        """Replay the traces to all that have no outcome yet."""
        left = [mutant for mutant in mutants if mutant.id not in self.outcomes]
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            # Its own copy: inserting changes the netlist.
            netlist = flatten(self.verilog, self.ports.top)
            insert(netlist, batch)
            key = sha256("".join(mutant.id for mutant in batch).encode()).hexdigest()[:12]
            program = compile_replay(to_verilog(netlist), self.ports, self.home / f"build-{key}")
            write_layout(self.ports, self.home / "layout")

            def one(numbers, program=program, batch=batch):
                def keep(number, outcome, _where):
                    self._keep(batch[number - 1], outcome)
                    told(outcome)

                return run_replay(program, self.home / "layout", numbers, self.traces, keep)

            shares = [range(first, len(batch) + 1, jobs) for first in range(1, min(jobs, len(batch)) + 1)]
            self.said = parallel(one, shares, jobs)[0]

    def prove(self, mutants: Sequence[Mutant], seconds: int, told: Callable[[str], None] = lambda _: None) -> None:
        """Ask the solver about those that no trace told from the design. One that it could not prove is asked again
        only in a new campaign or with more time."""
        prover = None
        for mutant in mutants:
            if self.outcomes.get(mutant.id) == "silent":
                prover = prover or Prover(self.netlist)
                proved = prover.equivalent(mutant, seconds)
                self._keep(mutant, "equivalent" if proved else "survived")
                told("equivalent" if proved else "survived")

    def report(self, mutants: Sequence[Mutant]) -> dict:
        """Counts, the score (killed of those not proved equivalent) and every survivor."""
        outcomes = [self.outcomes[mutant.id] for mutant in mutants]
        alive = (*ALIVE, "survived", "equivalent")
        killed = [outcome for outcome in outcomes if outcome not in alive]
        equivalent = outcomes.count("equivalent")
        survivors = [
            asdict(mutant) | {"id": mutant.id, "outcome": outcome}
            for mutant, outcome in zip(mutants, outcomes, strict=True)
            if outcome in (*ALIVE, "survived")
        ]
        return {
            "total": len(mutants),
            "killed": len(killed),
            "equivalent": equivalent,
            "timing": outcomes.count("timing"),
            "survived": len(survivors),
            "score": round(len(killed) / max(1, len(mutants) - equivalent), 4),
            "killed_by": {kind: killed.count(kind) for kind in sorted(set(killed))},
            "survivors": survivors,
        }
