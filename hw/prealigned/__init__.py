"""The pre-aligned datapath: activations become integers at a tile's edge, PEs add signed multiples of them."""
