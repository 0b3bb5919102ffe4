"""Runs the Yosys commands on standard input, one per line, on one design (see `gen.yosys`)."""

import sys

from pyosys import libyosys as ys

if __name__ == "__main__":
    design = ys.Design()
    for line in sys.stdin.read().splitlines():
        ys.run_pass(line, design)
