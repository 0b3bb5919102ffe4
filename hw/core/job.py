"""What passes between the core and whoever starts it: a job, and the errors of its streams."""

from amaranth.lib import data

__all__ = ["MACS_BITS", "CoreJob", "StreamErrors"]

MACS_BITS = 16
"""Width of the number of MACs in a cycle."""


class CoreJob(data.Struct):
    """What a job is: matrix shape M x K times K x N, datatypes its groups may have, group size code, FP16 results."""

    tokens: 32
    inputs: 16
    outputs: 16
    datatypes: 16
    group_size: 2
    fp16: 1


class StreamErrors(data.Struct):
    """Errors in the core's streams, each high for one cycle per occurrence; in the order of their codes."""

    reserved_header: 1
    reserved_code: 1
    parity: 1
    weight_length: 1
    activation_length: 1
    non_finite: 1
