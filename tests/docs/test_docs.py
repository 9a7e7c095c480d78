"""The documentation site: built strictly, whole, and made from the code where it says so.

Strict means that a link or an anchor that leads nowhere, or a page outside the nav, fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import sparsebert
from checkout import CHECKOUT
from sparsebert.cli.app import COMMANDS

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")

# mkdocs as a command, where torch and transformers cannot be imported.
MKDOCS = """
import sys
sys.modules.update(torch=None, transformers=None)
from mkdocs.__main__ import cli
cli(prog_name="mkdocs")
"""


def mkdocs(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = ["build", "--strict", "--config-file", str(config), "--site-dir"]
    return subprocess.run(
        [sys.executable, "-c", MKDOCS, *command, str(site)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = mkdocs(CHECKOUT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Page(HTMLParser):
    """The text of a page, its anchors, and what a browser would fetch to show it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if "src" in given:
            self.fetched.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical":
            self.fetched.append(given.get("href", ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_command_and_option_is_on_its_page(site: Path) -> None:
    page = _Page(site / "reference" / "command-line.html")
    for command in COMMANDS:
        assert f"sparsebert-{command.__name__}" in page.anchors
        first_line = (command.__doc__ or "").splitlines()[0]
        assert first_line in page.text
    assert "--calibration-rows" in page.text
    assert "<!-- made" not in page.text


def test_the_whole_public_face_is_on_its_page(site: Path) -> None:
    page = _Page(site / "reference" / "python.html")
    missing = {
        name
        for name in sparsebert.__all__
        if not {f"sparsebert.{name}", f"sparsebert.errors.{name}"} & page.anchors
    }
    assert missing == {"__version__"}
    assert "sparsebert.Model.embed" in page.anchors


def test_what_the_pages_import_is_in_the_reference(site: Path) -> None:
    """It is the public API: the rest may change from one release to the next."""
    anchors: set[str] = set()
    for page in (site / "reference").glob("*.html"):
        anchors |= _Page(page).anchors
    imported: set[str] = set()
    for page in (CHECKOUT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(r"^from (sparsebert[\w.]*) import (.+)$", text, re.M):
            imported |= {f"{module}.{name}" for name in names.split(", ")}
        imported |= set(re.findall(r"`(sparsebert(?:\.[a-z]\w*)+)\(", text))
    assert "sparsebert.checkpoint.read_masks" in imported
    assert imported <= anchors


OTHER_PAGES = {
    "server": "serving: create_app load_models ServedModel ServingOptions server.listen server.run",
    "scale": "scale: FilesResult classify_files embed_files ray_executor",
    "integrations": "integrations: transformers.pipeline transformers.SparsebertModel "
    "sentence_transformers.SentenceTransformer langchain.SparsebertEmbeddings "
    "llama_index.SparsebertEmbedding",
    "python": "training.locked_masks: LockedMasks LockedMasksCallback",
}


@pytest.mark.parametrize("name", OTHER_PAGES)
def test_what_other_packages_offer_is_on_its_page(site: Path, name: str) -> None:
    package, _, names = OTHER_PAGES[name].partition(": ")
    page = _Page(site / "reference" / f"{name}.html")
    assert {f"sparsebert.{package}.{each}" for each in names.split()} <= page.anchors


def test_every_recipe_is_on_its_page(site: Path) -> None:
    page = _Page(site / "recipes.html")
    recipes = sorted((CHECKOUT / "runs" / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert " ".join(recipe.read_text(encoding="utf-8").split()) in page.text


def test_pictures_are_in_the_pages_that_show_them(site: Path) -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    for picture in (CHECKOUT / "docs" / "pictures").glob("*.svg"):
        title = re.search("<title>.*</title>", picture.read_text(encoding="utf-8"))
        assert title is not None
        assert title[0] in shown


def test_nothing_is_fetched_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        assert not [link for link in _Page(page).fetched if re.match(r"(\w+:)?//", link)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_what_leads_nowhere_fails(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    links = ["gone.md", "index.md#gone-one", "#gone-two", "../GONE.md", "/gone-three"]
    (docs / "index.md").write_text("# A title\n\n" + "\n".join(f"[link]({to})" for to in links))
    (docs / "stray.md").write_text("# A page that no one finds\n")
    config = tmp_path / "mkdocs.yml"
    own = "docs_dir: docs\nnav: [index.md]\nplugins: []\nhooks: []\nextra_css: []\ntheme: mkdocs\n"
    config.write_text(f"INHERIT: {CHECKOUT / 'mkdocs.yml'}\n{own}")
    done = mkdocs(config, tmp_path / "site")
    assert done.returncode != 0
    for trouble in ("gone.md", "#gone-one", "#gone-two", "../GONE.md", "/gone-three", "stray.md"):
        assert trouble in done.stdout + done.stderr, trouble
