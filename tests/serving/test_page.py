"""The web page's files, without a browser: how they are sent, and that nothing is foreign."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from sparsebert.serving.page import STATIC, add_page

FILES = sorted(STATIC.iterdir())
SCRIPTS = [file for file in FILES if file.suffix == ".js"]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_page(app)
    return TestClient(app)


class Tags(HTMLParser):
    """All start tags of a document, and the text inside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"}:
            self.inline += data.strip()


@pytest.fixture(scope="module")
def page() -> Tags:
    return Tags((STATIC / "index.html").read_text(encoding="utf-8"))


def test_the_page_is_at_the_root_under_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (STATIC / "index.html").read_text(encoding="utf-8")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_is_sent_with_its_type_and_the_policy(client: TestClient, file) -> None:
    answer = client.get(f"/page/{file.name}")
    assert answer.content == file.read_bytes()
    kinds = {".js": "javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    assert kinds[file.suffix] in answer.headers["content-type"]
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    again = client.get(f"/page/{file.name}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["__init__.py", "../__init__.py", "%2e%2e/__init__.py", "%2e%2e%2f__init__.py", ""]
)
def test_nothing_beside_the_static_files_is_sent(client: TestClient, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


def test_nothing_is_inline_or_from_elsewhere(page: Tags) -> None:
    assert page.inline == ""
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            target = attributes.get(name)
            if target is not None and not target.startswith("#"):
                # Relative, so that the page also works below a proxy's prefix.
                assert re.fullmatch(r"[a-z./]+", target), target
                assert not target.startswith("/"), target
    for file in FILES:
        found = re.findall(r"\bhttps?://[^\s\"')]+", file.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org/2000/svg"}, (file, found)


def test_all_that_is_named_is_there(page: Tags) -> None:
    named = {
        str(attributes.get(name)).removeprefix("page/")
        for _, attributes in page.tags
        for name in ("src", "href")
        if str(attributes.get(name)).startswith("page/")
    }
    for script in SCRIPTS:
        named |= set(re.findall(r'from "\./([^"]+)"', script.read_text(encoding="utf-8")))
    assert named == {file.name for file in FILES} - {"index.html"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_scripts_make_no_html_of_texts(script) -> None:
    text = script.read_text(encoding="utf-8")
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert not re.search(ways, text)
    assert "localStorage" not in text
    assert "document.cookie" not in text


def test_every_field_has_a_label(page: Tags) -> None:
    labelled = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    fields = [a for tag, a in page.tags if tag in {"input", "select", "textarea"}]
    assert fields
    assert {field["id"] for field in fields} <= labelled
