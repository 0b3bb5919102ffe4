"""Blocks without streams: every input port given for every cycle, every output port recorded.

What is asserted about the recording (values, latencies, silence when nothing is due) is then array arithmetic in the
pytest process. Reset is an input like any other.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sim.build import Built
from sim.runner import run

__all__ = ["play"]


def play(
    built: Built, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], *, seed: int, **options
) -> dict[str, np.ndarray]:
    """Drive ``built`` for as many cycles as the inputs have rows.

    Parameters
    ----------
    inputs : mapping of port to array
        Values in the form of :mod:`sim.beats`, row k for cycle k; ``"rst"`` among them if resets are wanted. A reset of
        two cycles comes before row 0.
    outputs : sequence of ports
    seed : int
        Of the registers' values at power-up.
    options
        As for :func:`sim.runner.run`.

    Returns
    -------
    dict of port to array
        Row k is what the port shows at the end of cycle k, with the inputs of row k applied and before the clock edge.
    """
    if len({len(array) for array in inputs.values()}) != 1:
        raise ValueError(f"inputs must have one length: { {name: len(array) for name, array in inputs.items()} }")
    inputs = {"rst": np.zeros(len(next(iter(inputs.values()))), np.uint64)} | dict(inputs)
    result = run(
        built, "verif.bitserial.tb_player", vectors=inputs, options={"outputs": list(outputs)}, seed=seed, **options
    )
    return {name: result.data[name] for name in outputs}
