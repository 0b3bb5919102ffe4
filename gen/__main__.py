"""``python -m gen`` is the ``bitmosaic`` command."""

from gen.cli import app

app(prog_name="bitmosaic")
