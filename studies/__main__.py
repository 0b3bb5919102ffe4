"""``python -m studies``: what exists only to compare, a command each."""

from shell import console
from studies.arithmetic import arithmetic
from studies.attention.cost import attention_cost
from studies.density.command import density
from studies.density.exploration import explore
from studies.kv.area import kv_area
from studies.kv.quality import eval

app = console.application("Measure Bitmosaic's designs beside others.")
for study in (density, explore, kv_area, attention_cost, arithmetic, eval):
    console.command(app, study)

if __name__ == "__main__":
    app()
