"""What a quantized KV cache is: frozen, validated formats, and the named presets of the tables.

Codes are called by their datatype: ``binary`` (K1), ``s2`` (K2S), ``u2`` (K2 and V2), ``ternary`` (V1.58).
"""

from dataclasses import dataclass, field, replace

from spec import checks

__all__ = ["CODES", "PRESETS", "CacheFormat", "KeyFormat", "ValueFormat", "preset"]

CODES = ("binary", "s2", "u2", "ternary")
TRANSFORMS = ("none", "rfft", "wht")
TRANSFORM_SIZES = (16, 32, 64, 128)
GROUPS = (32, 64, 128)
ROUNDINGS = ("nearest", "attention")
METADATA = ("fp16", "q8", "f6")


@dataclass(frozen=True, kw_only=True)
class KeyFormat:
    """Keys: per channel in groups of tokens, after an orthonormal transform across a token's channels.

    Parameters
    ----------
    code : str
        Code of the ordinary channels; ``"fp16"`` leaves the keys alone.
    anomalous_code : str or None
        Code of the anomalous channels, those of largest range; None: there are none.
    anomalous : float
        Share of the channels that is anomalous, 0 < share < 1; D * share channels, down to a multiple of 8.
    split_by : str
        ``"head"`` ranks the channels of each KV head, ``"layer"`` ranks them once for all heads of a layer.
    transform : str
        ``"wht"``, ``"rfft"`` or ``"none"``, across the channels of each code; an affine code (``u2``) is never
        transformed, nor is a part whose size has no transform (16, 32, 64 and 128 have one).
    group : int
        Tokens that share a channel's scale.
    metadata : str
        ``"fp16"``: FP16 scales and minima; ``"q8"``, ``"f6"``: small numbers under a power of two
        per block (`golden.kv.metadata`).
    centre : bool
        Take the prefill mean off every key first (free in attention).
    gamma : float or None
        Ternary threshold in units of the mean magnitude; None: the threshold of least squared error.
    fit : str
        Scale of ``s2`` and ``u2``: ``"moment"`` (0.9957 rms; minimum and maximum) or ``"mse"`` (least squared error).
    rounding : str
        ``"nearest"`` level, or ``"attention"``: codes and scales refined for small errors in what attention computes
        (`golden.kv.refine`; not for ``u2``); the stored format is the same.
    """

    code: str = "binary"
    anomalous_code: str | None = "s2"
    anomalous: float = 0.5
    split_by: str = "head"
    transform: str = "wht"
    group: int = 128
    metadata: str = "f6"
    centre: bool = True
    gamma: float | None = 0.75
    fit: str = "moment"
    rounding: str = "nearest"

    def __post_init__(self):
        checks.choice("code", self.code, (*CODES, "fp16"))
        checks.choice("anomalous_code", self.anomalous_code, (*CODES, None))
        checks.choice("split_by", self.split_by, ("layer", "head"))
        checks.choice("transform", self.transform, TRANSFORMS)
        checks.choice("group", self.group, GROUPS)
        checks.choice("metadata", self.metadata, METADATA)
        checks.choice("centre", self.centre, (False, True))
        checks.choice("fit", self.fit, ("moment", "mse"))
        checks.choice("rounding", self.rounding, ROUNDINGS)
        if self.gamma is not None:
            checks.number("gamma", self.gamma, 0.0, 4.0)
        if self.rounding == "attention" and "u2" in (self.code, self.anomalous_code):
            raise ValueError("rounding must be 'nearest' for u2, not 'attention'")
        if self.anomalous_code is not None:
            checks.number("anomalous", self.anomalous, 0.0, 1.0)
            if self.code != "binary" or self.anomalous_code not in ("s2", "u2"):
                raise ValueError(
                    "anomalous_code must be None, or 's2' or 'u2' beside code 'binary', "
                    f"not {self.anomalous_code!r} beside {self.code!r}"
                )
        if self.metadata == "f6" and "u2" in (self.code, self.anomalous_code):
            raise ValueError("metadata must be 'fp16' or 'q8' for u2, not 'f6'")

    def anomalous_channels(self, head_dim: int) -> int:
        """Channels of one head stored with `anomalous_code`: their share of it, down to a multiple of 8, as packed."""
        share = int(head_dim * self.anomalous) if self.anomalous_code is not None else 0
        return share - share % 8 if head_dim % 8 == 0 else share

    def transform_of(self, code: str, channels: int) -> str:
        """Transform across `channels` channels stored as `code`."""
        return self.transform if code != "u2" and channels in TRANSFORM_SIZES else "none"


@dataclass(frozen=True, kw_only=True)
class ValueFormat:
    """Values: per channel in groups of tokens, untransformed.

    Parameters
    ----------
    code : str
        ``"ternary"``, ``"u2"`` or ``"fp16"``.
    group, metadata, gamma, fit, rounding
        As in `KeyFormat`; protected tokens take ``"q8"`` where the others have ``"f6"``, and round to
        nearest.
    scale : str
        Ternary scale: ``"kept_mean"`` (mean of the kept magnitudes, least squares for the codes) or ``"mean"`` (mean
        of all magnitudes).
    centre : bool
        Take the prefill mean off every value first; attention weights add up to 1, so the output gets it back as a
        constant.
    protected : float
        Share of the tokens kept at ``u2`` by semantic token protection, 0 <= share < 1; 0: none.
    """

    code: str = "ternary"
    group: int = 128
    metadata: str = "f6"
    gamma: float | None = 0.5
    fit: str = "moment"
    rounding: str = "nearest"
    scale: str = "kept_mean"
    centre: bool = False
    protected: float = 0.0

    def __post_init__(self):
        checks.choice("code", self.code, ("ternary", "u2", "fp16"))
        checks.choice("group", self.group, GROUPS)
        checks.choice("metadata", self.metadata, METADATA)
        checks.choice("fit", self.fit, ("moment", "mse"))
        if self.metadata == "f6" and self.code == "u2":
            raise ValueError("metadata must be 'fp16' or 'q8' for u2, not 'f6'")
        checks.choice("rounding", self.rounding, ROUNDINGS)
        if self.rounding == "attention" and self.code == "u2":
            raise ValueError("rounding must be 'nearest' for u2, not 'attention'")
        checks.choice("scale", self.scale, ("kept_mean", "mean"))
        checks.choice("centre", self.centre, (False, True))
        if self.gamma is not None:
            checks.number("gamma", self.gamma, 0.0, 4.0)
        checks.number("protected", self.protected, 0.0, 0.999)
        if self.protected and self.code != "ternary":
            raise ValueError(
                f"protected must be 0 unless code is 'ternary' (code is {self.code!r}), not {self.protected!r}"
            )


@dataclass(frozen=True, kw_only=True)
class CacheFormat:
    """A whole cache.

    Parameters
    ----------
    key, value : KeyFormat, ValueFormat
        Formats of the tokens that are neither sinks nor recent.
    sinks : int
        First tokens, kept exact and out of all groups and statistics.
    recent : int
        Newest tokens, kept exact.
    mode : str
        ``"paper"`` (VidKV's intent, corrected) or ``"released"`` (the authors' code, `golden.kv.released`).
    """

    key: KeyFormat = field(default_factory=KeyFormat)
    value: ValueFormat = field(default_factory=ValueFormat)
    sinks: int = 16
    recent: int = 128
    mode: str = "paper"

    def __post_init__(self):
        for name, kind in (("key", KeyFormat), ("value", ValueFormat)):
            checks.instance(name, getattr(self, name), kind)
        checks.choice("mode", self.mode, ("paper", "released"))
        checks.whole("sinks", self.sinks, 0, min(self.key.group, self.value.group) - 1)
        checks.whole("recent", self.recent, 0)


_FP16_KEYS = KeyFormat(code="fp16", anomalous_code=None, centre=False, transform="none")
_KIVI = CacheFormat(
    key=KeyFormat(code="u2", anomalous_code=None, transform="none", group=32, metadata="fp16", centre=False),
    value=ValueFormat(code="u2", group=32, metadata="fp16"),
)
_VIDKV = CacheFormat(
    key=KeyFormat(anomalous_code="u2", transform="rfft", group=32, metadata="fp16", centre=False, split_by="layer"),
    value=ValueFormat(group=32, metadata="fp16", gamma=0.7),
)
_DEFAULT = CacheFormat()
_ATTENTION_KEYS = KeyFormat(rounding="attention")
_ATTENTION_VALUES = ValueFormat(rounding="attention")

PRESETS: dict[str, CacheFormat] = {
    "fp16": CacheFormat(key=_FP16_KEYS, value=ValueFormat(code="fp16")),
    "kivi": _KIVI,
    "vidkv": _VIDKV,
    "vidkv-stp": replace(_VIDKV, value=replace(_VIDKV.value, protected=0.2)),
    "vidkv-released": replace(_VIDKV, value=replace(_VIDKV.value, gamma=0.5), sinks=0, mode="released"),
    "default": _DEFAULT,
    "keys-binary": replace(_DEFAULT, key=replace(_DEFAULT.key, anomalous_code=None)),
    "keys-ternary": replace(_DEFAULT, key=replace(_DEFAULT.key, code="ternary", anomalous_code=None)),
    "keys-s2": replace(_DEFAULT, key=replace(_DEFAULT.key, code="s2", anomalous_code=None)),
    "keys-s2-rfft": replace(_DEFAULT, key=replace(_DEFAULT.key, code="s2", anomalous_code=None, transform="rfft")),
    "keys-s2-only": replace(
        _DEFAULT, key=replace(_DEFAULT.key, code="s2", anomalous_code=None), value=ValueFormat(code="fp16")
    ),
    "values-ternary-only": replace(_DEFAULT, key=_FP16_KEYS),
    "attention-keys": replace(_DEFAULT, key=_ATTENTION_KEYS),
    "attention-values": replace(_DEFAULT, value=_ATTENTION_VALUES),
    "attention": replace(_DEFAULT, key=_ATTENTION_KEYS, value=_ATTENTION_VALUES),
    "keys-s2-attention": replace(
        _DEFAULT, key=replace(_ATTENTION_KEYS, code="s2", anomalous_code=None), value=_ATTENTION_VALUES
    ),
}


def preset(name: str) -> CacheFormat:
    """The named format; `ValueError` lists the names."""
    return checks.named("format", name, PRESETS)
