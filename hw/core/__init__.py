"""The accelerator core: a tile of PEs, what feeds it and what it feeds (docs/core.md)."""
