"""What hardware and golden models share: names, codes, field widths, bit layouts, configurations.

Pure Python: importing this package needs neither Amaranth nor torch. Nothing here computes; the bit-serial terms of a
code are derived in ``hw`` only, the arithmetic on its value in ``golden`` only.
"""
