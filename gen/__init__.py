"""The generator: Verilog emission, synthesis estimates and the command line."""

__version__ = "0.1.0"
