"""``python -m gen`` is the ``bitmosaic`` command."""

from .cli import app

app(prog_name="bitmosaic")
