"""The table of formats, as Markdown, between the markers of a document."""

__all__ = ["MARKERS", "PAIRS", "ROWS", "table"]

MARKERS = ("<!-- perplexity: begin (python -m golden.kv.evaluate) -->", "<!-- perplexity: end -->")

ROWS = {
    "fp16": "FP16 cache",
    "dropped": "old tokens dropped",
    "kivi": "KIVI-like: 2-bit min/max, G 32, FP16 metadata",
    "vidkv": "VidKV corrected: 1.5-bit keys (rfft), 1.58-bit values, G 32, FP16 metadata",
    "vidkv-stp": "the same, 20% of the tokens protected (at random)",
    "vidkv-released": "VidKV as released, no exact sinks",
    "keys-binary": "1-bit keys, wht, centre; ternary values; G 128, 6-bit scales",
    "keys-ternary": "ternary keys, gamma 0.75, wht, centre; the same values",
    "default": "**default: 1.5-bit keys (s2 + binary), wht, centre; the same values**",
    "keys-s2": "2-bit keys (s2), wht, centre; the same values",
    "keys-s2-rfft": "2-bit keys (s2), rfft, centre; the same values",
    "keys-s2-only": "2-bit keys (s2), wht, centre; values FP16",
    "values-ternary-only": "keys FP16; ternary values, gamma 0.5",
    "attention-keys": "default, keys rounded for attention",
    "attention-values": "default, values rounded for attention",
    "attention": "default, keys and values rounded for attention",
    "keys-s2-attention": "2-bit keys (s2), wht, centre; the same values; both rounded for attention",
}
"""Preset -> what the table calls it, in the table's order."""

PAIRS = {
    "attention-keys": "default",
    "attention-values": "default",
    "attention": "default",
    "keys-s2-attention": "keys-s2",
}
"""Preset rounded for attention -> the same stored format rounded to nearest."""


def table(report: dict) -> str:
    """Markdown table of `golden.kv.evaluate.evaluate`'s report, with the protocol above it."""
    protocol = report["protocol"]
    windows, tokens = len(protocol["starts"]), protocol["tokens"]
    lines = [
        f"{windows} x {tokens} tokens of text {protocol['text_sha256'][:12]}, checkpoint "
        f"{protocol['checkpoint_sha256'][:12]}; newest {protocol['recent']} and first {protocol['sinks']} exact.",
        "",
        "| format | bits K / V | perplexity | kept | first window | quantizing, us |",
        "|---|---|---|---|---|---:|",
    ]
    for row in report["rows"]:
        bits = "-" if row["name"] == "dropped" else f"{row['bits_keys']:.2f} / {row['bits_values']:.2f}"
        kept = "-" if row["name"] in ("fp16", "dropped") else f"{100 * row['kept']:.0f}%"
        if kept != "-" and row["kept_error"] is not None:
            kept += f" ± {100 * row['kept_error']:.0f}"
        lines.append(
            f"| {ROWS.get(row['name'], row['name'])} | {bits} | {row['perplexity']:.2f} | {kept} | "
            f"{row['perplexity_first_window']:.2f} | "
            + ("- |" if row["quantizing_seconds"] is None else f"{1e6 * row['quantizing_seconds']:,.0f} |")
        )
    lines += ["", "Quantizing: processor time per token and layer, of 784 tokens, keys and values."]
    for pair in report["pairs"]:
        error = "" if pair["error"] is None else f" ± {100 * pair['error']:.0f}"
        lines.append(
            f"`{pair['name']}` keeps {100 * pair['gain']:.0f}{error} percentage points more than `{pair['than']}`."
        )
    return "\n".join(lines) + "\n"
