"""Mutations on the netlist of a top: small defects, many in one simulator, each run against recorded traffic.

``python -m verif.mutation`` (``make mutation``) draws mutants of the emitted Verilog (:mod:`.mutants`), records what
goes in and out of the block's ports in its own tests (:mod:`.traces`), replays it to every mutant (:mod:`.replay`), and
asks a SAT solver about those that no trace kills (:mod:`.equivalence`).
"""
