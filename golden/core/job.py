"""What the core makes of a job whose packets may hold anything: sections 4 and 5 of docs/core.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from golden.core.groups import PreparedActivations, prepare
from golden.core.layer import CoreResult, finish
from golden.core.streams import check_weight, chunk_slices
from golden.prealigned.dot import running_sums
from golden.weights.packing import padded_lengths
from golden.weights.parsing import ParsedRow, parse_row
from golden.weights.quantized import QuantizedWeight
from golden.weights.uniform import RESERVED_CODES, header_fields
from golden.weights.unpacking import stack_rows
from spec.core import CHANNEL_HEADER, CoreConfig
from spec.datatypes import Datatype
from spec.errors import WeightError
from spec.packet import GROUP_HEADER_BITS, ROW_HEADER_BITS, WORD_BITS, group_size_code

__all__ = ["ERROR_CODES", "CoreJob", "JobResult", "job_model"]

ERROR_CODES = {
    "RESERVED_HEADER": 9,
    "RESERVED_CODE": 10,
    "PARITY": 11,
    "WEIGHT_LENGTH": 12,
    "ACTIVATION_LENGTH": 13,
    "NON_FINITE": 14,
}
"""CoreError of the stream errors (docs/registers.md)."""


@dataclass(frozen=True, kw_only=True)
class CoreJob:
    """The job registers: ``Y[tokens, outputs] = X[tokens, inputs] W[outputs, inputs]^T``."""

    tokens: int
    inputs: int
    outputs: int
    group_size: int
    datatypes: frozenset[Datatype]
    fp16: bool = False

    @classmethod
    def of(cls, config: CoreConfig, weight: QuantizedWeight, tokens: int, *, fp16: bool = False) -> "CoreJob":
        """The job of a whole layer. Raises ValueError if this build cannot take the weight."""
        check_weight(config, weight)
        kinds = frozenset(Datatype(field) for field in weight.datatype.unique().tolist())
        outputs, inputs = weight.shape
        return cls(
            tokens=tokens, inputs=inputs, outputs=outputs, group_size=weight.group_size, datatypes=kinds, fp16=fp16
        )

    def registers(self) -> dict[str, int]:
        """What to write to the job registers, by name."""
        return {
            "TOKENS": self.tokens,
            "INPUTS": self.inputs,
            "OUTPUTS": self.outputs,
            "FORMAT": group_size_code(self.group_size) | self.fp16 << 8,
            "DATATYPES": sum(1 << datatype for datatype in self.datatypes),
        }


@dataclass(frozen=True, eq=False)
class JobResult:
    """Results, and one entry for every error that counts: the codes of which it is one (several where a packet is wrong
    in several ways, of which the core reports the first that it meets)."""

    result: CoreResult
    errors: tuple[frozenset[int], ...]


def job_model(
    config: CoreConfig,
    job: CoreJob,
    weights: Sequence[np.ndarray],
    activations: Sequence[np.ndarray],
    special_values: Mapping[Datatype, tuple[int, ...]] | None = None,
) -> JobResult:
    """Results and errors of a job, for packets that end where they should or not, with any bits.

    Parameters
    ----------
    config : CoreConfig
    job : CoreJob
        One that the registers accept.
    weights : sequence of uint64 arrays [beats, R]
        All weight packets of the job, in order.
    activations : sequence of uint16 arrays [beats, L]
        All activation packets, in order.
    special_values : mapping
        What the special-value registers hold.

    Raises
    ------
    ValueError
        Not as many packets as the job takes.
    """
    tiling, chunks = config.tiling(job.tokens, job.inputs, job.outputs), chunk_slices(config, job.inputs)
    blocks = [-(-size // config.rows) for size in tiling.outputs]
    wanted = len(tiling.tokens) * len(chunks) * sum(blocks), job.tokens * len(chunks) * len(blocks)
    if (len(weights), len(activations)) != wanted:
        raise ValueError(
            f"the job takes {wanted} weight and activation packets, not {(len(weights), len(activations))}"
        )
    weights, activations = iter(weights), iter(activations)
    errors: list[frozenset[int]] = []
    columns = []  # of every token block: results of its super-blocks
    for tokens in tiling.tokens:
        row = []
        for size in tiling.outputs:
            sums, scales = torch.zeros(tokens, size), torch.ones(size)
            marked = torch.zeros(tokens, size, dtype=torch.bool)
            for start, stop in chunks:
                prepared, bad = _activations(config, job, [next(activations) for _ in range(tokens)], stop - start)
                errors += [frozenset({code}) for codes in bad for code in sorted(codes)]
                marked |= torch.tensor([bool(codes) for codes in bad])[:, None]
                for first in range(0, size, config.rows):
                    part = slice(first, min(first + config.rows, size))
                    parsed = _weights(config, job, next(weights)[:, : part.stop - first], stop - start)
                    errors += [codes for _row, _scale, codes in parsed if codes]
                    marked[:, part] |= torch.tensor([bool(codes) for _row, _scale, codes in parsed])
                    for channel, (packet, scale, codes) in enumerate(parsed, first):
                        scales[channel] = scale
                        if not codes:
                            weight = stack_rows([packet], special_values=special_values)
                            one = slice(channel, channel + 1)
                            sums[:, one] = running_sums(prepared.values(weight), sums[:, one])
            row.append(finish(sums, scales, marked, fp16=job.fp16))
        columns.append(row)
    whole = {name: np.block([[getattr(part, name) for part in row] for row in columns]) for name in ("bits", "marked")}
    flags = {
        name: any(getattr(part, name) for row in columns for part in row)
        for name in ("fp32_overflow", "fp16_saturated")
    }
    return JobResult(CoreResult(**whole, **flags, fp16=job.fp16), tuple(errors))


def _activations(
    config: CoreConfig, job: CoreJob, packets: Sequence[np.ndarray], length: int
) -> tuple[PreparedActivations, list[frozenset[int]]]:
    """A chunk's activations, missing ones zero, and all that was wrong with each packet."""
    lanes = config.datapath.lanes
    beats = -(-length // lanes)
    values = np.zeros((len(packets), beats * lanes), np.uint16)
    bad = []
    for token, packet in enumerate(packets):
        codes = set()
        if len(packet) != beats:
            codes.add(ERROR_CODES["ACTIVATION_LENGTH"])
        flat = packet[:beats].reshape(-1)
        values[token, : len(flat)] = flat
        if ((values[token, :length] >> 10 & 31) == 31).any():
            codes.add(ERROR_CODES["NON_FINITE"])
        bad.append(frozenset(codes))
    chosen = torch.from_numpy(values[:, :length].copy().view(np.float16))
    return prepare(config.datapath, chosen, job.group_size), bad


def _weights(
    config: CoreConfig, job: CoreJob, packet: np.ndarray, length: int
) -> list[tuple[ParsedRow | None, float, frozenset[int]]]:
    """Row packet, channel scale and errors of each channel of a pass; ``packet`` holds the slices in use."""
    words = len(packet) - 1
    headers = [header_fields(CHANNEL_HEADER, int(word)) for word in packet[0]]
    codes = [_header_error(config, int(word), header) for word, header in zip(packet[0], headers, strict=True)]
    longest = max((header["words"] for header, code in zip(headers, codes, strict=True) if not code), default=0)
    parsed = []
    for channel, header in enumerate(headers):
        scale = np.array(header["channel_scale"], np.uint32).view(np.float32).item()
        row = None
        if not codes[channel]:
            count = header["words"]
            if count > words or (count == longest and count != words):
                codes[channel] = {ERROR_CODES["WEIGHT_LENGTH"]}
            if words:
                given = packet[1 : 1 + count, channel].copy()
                row = parse_row(given, lanes=config.datapath.lanes)
                codes[channel] = codes[channel] | _row_errors(job, row, length)
                codes[channel] |= _cut_group_errors(job, given, row, config.datapath.lanes)
        parsed.append((row, scale, frozenset(codes[channel])))
    return parsed


def _header_error(config: CoreConfig, word: int, header: Mapping[str, int]) -> set[int]:
    if word.bit_count() % 2:
        return {ERROR_CODES["PARITY"]}
    if header["reserved"]:
        return {ERROR_CODES["RESERVED_HEADER"]}
    if not 1 <= header["words"] <= config.max_words:
        return {ERROR_CODES["WEIGHT_LENGTH"]}
    return set()


def _row_errors(job: CoreJob, row: ParsedRow, length: int) -> set[int]:
    codes = {ERROR_CODES[flag.name] for flag in WeightError if flag & row.flags}
    if row.group_size != job.group_size or set(row.datatype.tolist()) - {int(d) for d in job.datatypes}:
        codes.add(ERROR_CODES["RESERVED_HEADER"])
    if row.length != length:
        codes.add(ERROR_CODES["WEIGHT_LENGTH"])
    return codes


def _cut_group_errors(job: CoreJob, words: np.ndarray, row: ParsedRow, lanes: int) -> set[int]:
    """What the group in which a row packet ends shows before its end: its datatype, and a code without a value."""
    if not row.group_size or not row.flags & WeightError.WEIGHT_LENGTH:
        return set()
    slots, whole = padded_lengths(row.length, row.group_size, lanes), len(row.datatype)
    widths = np.array([Datatype(int(field)).bits for field in row.datatype], np.int64)
    start = ROW_HEADER_BITS + int((GROUP_HEADER_BITS + slots[:whole] * widths).sum())
    first = start + GROUP_HEADER_BITS
    if whole == len(slots) or first > WORD_BITS * len(words):
        return set()
    field = int(words[start // WORD_BITS] >> np.uint64(start % WORD_BITS)) & 15
    if field not in job.datatypes:
        return {ERROR_CODES["RESERVED_HEADER"]}
    width = Datatype(field).bits
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[first:]
    count = min(row.length - whole * row.group_size, row.group_size, len(bits) // width)
    codes = np.packbits(bits[: count * width].reshape(count, width), axis=1, bitorder="little")[:, 0]
    return {ERROR_CODES["RESERVED_CODE"]} if RESERVED_CODES[field, codes].any() else set()
