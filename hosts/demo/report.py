"""The demo's report: what was compared, and whether it passed."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shell.output import write_file

__all__ = ["Column", "Item", "Section", "write_report"]


@dataclass
class Item:
    """One comparison of results received from the simulator with a golden model.

    Attributes
    ----------
    name : str
    expected : int
        Results that the job should give.
    compared : int
        Results received from the simulator and compared.
    mismatches : int
        Results that differ in any bit (NaN compares by its bits).
    cycles : int
        Simulated clock cycles.
    max_rel_error : float or None
        Of products: largest ``|y - float64| / sum |a * w|``. Of other results: as the section's notes define it.
    more : dict
        Further entries of the report.
    """

    name: str
    expected: int
    compared: int = 0
    mismatches: int = 0
    cycles: int = 0
    max_rel_error: float | None = None
    more: dict = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Everything that was expected came back, and all of it matches."""
        return self.mismatches == 0 and self.compared == self.expected > 0

    def as_dict(self) -> dict:
        """The item as it stands in the report."""
        fixed = {key: value for key, value in vars(self).items() if key != "more"}
        return fixed | {"pass": self.passed} | self.more


@dataclass(frozen=True)
class Column:
    """A column of a section's table: its heading, the key in an item's entry, a format for its values."""

    heading: str
    key: str
    form: str = ""


@dataclass
class Section:
    """A part of the demo: its items, the Verilog they ran on (top to SHA-256), and the columns of its table."""

    name: str
    title: str
    columns: list[Column]
    items: list[Item] = field(default_factory=list)
    verilog_sha256: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        """The table's cells, formatted."""
        entries = [item.as_dict() for item in self.items]
        return [
            ["-" if entry.get(c.key) is None else format(entry[c.key], c.form) for c in self.columns]
            for entry in entries
        ]

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column.heading, justify="right" if column.form else "left", no_wrap=True)
        for item, row in zip(self.items, self.rows(), strict=True):
            table.add_row(*row, style=None if item.passed else "bold red")
        console.print(table)
        for note in self.notes:
            console.print(note)

    def markdown(self) -> str:
        """The table in Markdown, for the docs."""
        lines = [
            "| " + " | ".join(column.heading for column in self.columns) + " |",
            "|" + "|".join("---:" if column.form else "---" for column in self.columns) + "|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join([*lines, "", *self.notes]) + "\n"


def write_report(sections: list[Section], seed: int, out_dir: Path) -> bool:
    """Write ``report.json`` and ``report.md`` to ``out_dir``; True if every item of every section passed."""
    passed = bool(sections) and all(section.items and all(i.passed for i in section.items) for section in sections)
    report = {
        "pass": passed,
        "seed": seed,
        "verilog_sha256": {top: sha for section in sections for top, sha in section.verilog_sha256.items()},
        "sections": [{"name": s.name, "items": [item.as_dict() for item in s.items]} for s in sections],
    }
    markdown = "\n".join(f"## {section.title}\n\n{section.markdown()}" for section in sections)
    for name, text in (("report.json", json.dumps(report, indent=2) + "\n"), ("report.md", markdown)):
        write_file(out_dir / name, text)
    return passed
