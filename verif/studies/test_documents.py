"""The documents: links lead somewhere, generated pages are current, the README names the rooms that there are."""

import re
import tomllib
from xml.etree import ElementTree

import pytest

from golden.document import write_between_markers
from sim.build import ROOT
from studies.docs import picture, ports

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(text):
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_are_there(page):
    """Paths, and dotted names of modules with what is in them, wherever a page mentions them."""
    text = page.read_text()
    rooms = "|".join(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists())
    for path in re.findall(rf"(?<![\w/.])((?:{rooms})/[\w/.-]*\w)", text):
        assert (ROOT / path).exists(), path
    for name in set(re.findall(rf"(?<![\w/.])((?:{rooms})(?:\.\w+)+)", text)):
        module, parts = ROOT, name.split(".")
        while parts and ((module / parts[0]).is_dir() or (module / f"{parts[0]}.py").exists()):
            module /= parts.pop(0)
        source = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
        assert not parts or re.search(rf"\b{parts[0]}\b", source.read_text() if source.exists() else ""), name


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_readme_is_short_and_names_every_room():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 80
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    rooms = {f"hw/{path.name}" for path in (ROOT / "hw").iterdir() if (path / "__init__.py").exists()}
    for room in {*packages, *rooms} - {"hw"}:
        assert f"`{room}/`" in text or f"`{room}`" in text, room


def test_ports_are_current(tmp_path):
    page = tmp_path / "ports.md"
    page.write_text((ROOT / ports.PAGE).read_text())
    write_between_markers(page, ports.markdown(), ports.MARKERS)
    assert page.read_text() == (ROOT / ports.PAGE).read_text(), "write it again: python -m studies.docs.ports"


def test_picture_is_current_and_complete():
    text = (ROOT / picture.PAGE).read_text()
    assert text == picture.picture(), "draw it again: python -m studies.docs.picture"
    words = [element.text for element in ElementTree.fromstring(text).iter() if element.text]
    assert "prefers-color-scheme: dark" in text
    assert {row.top for row in picture.ROWS} <= set(words)
