"""Where everything is in a file of packed weights, before any of it is known: header, description, positions."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from golden.weights.packing import PackedPlan, PackedWeight
from spec.datatypes import Datatype

__all__ = ["ARRAYS", "FileLayout", "text_hash", "weight_hash"]

ARRAYS = {"words": np.dtype("<u8"), "offsets": np.dtype("<i8"), "channel_scale": np.dtype("<f4")}
"""Arrays of each tensor ``name``, stored as ``name.words`` and so on."""

_STORED_AS = {"words": "U64", "offsets": "I64", "channel_scale": "F32"}


def text_hash(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def weight_hash(packed: PackedWeight) -> str:
    """SHA-256 over the name, dtype, length and bytes of each array, hexadecimal."""
    digest = hashlib.sha256()
    for part, dtype in ARRAYS.items():
        array = np.ascontiguousarray(getattr(packed, part).astype(dtype, copy=False))
        digest.update(f"{part} {dtype.str} {len(array)}:".encode())
        digest.update(array.data)
    return digest.hexdigest()


class FileLayout:
    """A ``safetensors`` file of planned tensors: where each array goes, and the header once the hashes are known.

    Parameters
    ----------
    plans : mapping from name to PackedPlan
    metadata : mapping
        Entries of the header's metadata beside the description and its hash.
    """

    def __init__(self, plans: Mapping[str, PackedPlan], metadata: Mapping[str, str]):
        self.plans = dict(sorted(plans.items()))
        self._metadata = dict(metadata)
        self._tensors, end = {}, 0
        # The 4-byte scales go last, so that all the 8-byte arrays are aligned.
        for parts in (("words", "offsets"), ("channel_scale",)):
            for name, plan in self.plans.items():
                for part in parts:
                    length = {"words": plan.words, "offsets": plan.shape[0] + 1, "channel_scale": plan.shape[0]}[part]
                    begin, end = end, end + length * ARRAYS[part].itemsize
                    self._tensors[f"{name}.{part}"] = {
                        "dtype": _STORED_AS[part],
                        "shape": [length],
                        "data_offsets": [begin, end],
                    }
        self._header_size = len(self.header(dict.fromkeys(self.plans, "0" * 64)))  # hashes are equally long

    def position(self, name: str, part: str) -> int:
        """Offset of an array's first byte in the file."""
        return self._header_size + self._tensors[f"{name}.{part}"]["data_offsets"][0]

    def sizes(self) -> dict[tuple[str, str], int]:
        """(tensor, array) -> bytes, in the file's order."""
        spans = {key: entry["data_offsets"] for key, entry in self._tensors.items()}
        return {tuple(key.rsplit(".", 1)): end - begin for key, (begin, end) in spans.items()}

    def header(self, hashes: Mapping[str, str]) -> bytes:
        """The file up to its first array: length and JSON, keys in order, so that equal contents give equal bytes."""
        description = self._description(hashes)
        metadata = self._metadata | {"weights": description, "payload_sha256": text_hash(description)}
        text = json.dumps({"__metadata__": metadata, **self._tensors}, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def payload_hash(self, hashes: Mapping[str, str]) -> str:
        """SHA-256 of the description, which holds every tensor's own."""
        return text_hash(self._description(hashes))

    def _description(self, hashes: Mapping[str, str]) -> str:
        entries = {
            name: {
                "shape": list(plan.shape),
                "words": plan.words,
                "group_size": plan.group_size,
                "lanes": plan.lanes,
                "special_values": {Datatype(d).name: list(values) for d, values in plan.special_values.items()},
                "sha256": hashes[name],
            }
            for name, plan in self.plans.items()
        }
        return json.dumps(entries, sort_keys=True)
