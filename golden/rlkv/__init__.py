"""RLKV: head policies, streaming attention, the memory plan and the model of the KV address generator."""

from golden.rlkv.adapter import AdapterError, load_adapter
from golden.rlkv.address_model import AddressModel, packed_end
from golden.rlkv.attention import retained, streaming_attention, streaming_mask
from golden.rlkv.plan import CacheShape, MemoryPlan, budget_sglang, bytes_per_sequence, kv_bytes_rlkv
from golden.rlkv.policy import HeadPolicy, full_count, select_full

__all__ = [
    "AdapterError",
    "AddressModel",
    "CacheShape",
    "HeadPolicy",
    "MemoryPlan",
    "budget_sglang",
    "bytes_per_sequence",
    "full_count",
    "kv_bytes_rlkv",
    "load_adapter",
    "packed_end",
    "retained",
    "select_full",
    "streaming_attention",
    "streaming_mask",
]
