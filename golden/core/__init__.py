"""Models of the accelerator core (docs/core.md): a layer's exact results, stream images, and jobs with any defects."""

from golden.core.files import write_layer
from golden.core.job import CoreJob, JobResult, job_model
from golden.core.layer import CoreResult, core_layer, finish, input_channels
from golden.core.results import result_beats, result_matrix
from golden.core.streams import (
    Packets,
    activation_image,
    activation_stream,
    channel_header,
    weight_image,
    weight_stream,
)

__all__ = [
    "CoreJob",
    "CoreResult",
    "JobResult",
    "Packets",
    "activation_image",
    "activation_stream",
    "channel_header",
    "core_layer",
    "finish",
    "input_channels",
    "job_model",
    "result_beats",
    "result_matrix",
    "weight_image",
    "weight_stream",
    "write_layer",
]
