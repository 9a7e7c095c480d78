"""The web page as people use it: in a real browser, against a real server of tiny models.

Skipped where the Python package playwright or a Chromium of the system is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

for package in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
    pytest.importorskip(package)
playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect

import sparsebert as sb
from served import serving
from sparsebert.serving import load_models
from sparsebert.serving.errors import overloaded

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium for the web page: apt install chromium, or Google Chrome"
)
TEXT = "the old man was reading"
expect.set_options(timeout=20_000)  # a busy machine is slow, and not wrong


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Chromium's sandbox refuses to run as root, as tests do in containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folders(
    tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A classifier, sparse and dense; a model of each other head; the first one is the default."""
    folder = tmp_path_factory.mktemp("served")
    dense = tiny_bert("sequence-classification")
    sb.prune(dense, folder / "sparse")
    sb.pack(folder / "sparse", folder / "packed", dtype="int8")
    return {
        "packed": folder / "packed",
        "dense": dense,
        "answers": tiny_bert("question-answering", max_position_embeddings=128),
        "ranks": tiny_bert("sequence-classification", num_labels=1),
        "<i>odd</i>": tiny_bert("encoder"),
    }


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[str]:
    models = load_models([f"{name}={folder}" for name, folder in folders.items()], threads=1)
    with serving(models) as address:
        yield address


@contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """The page, which must not ask for anything elsewhere, nor complain about anything."""
    with browser.new_context(**context) as session:
        session.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = session.new_page()
        page.set_default_timeout(20_000)
        foreign, complaints = [], []
        page.on("request", lambda r: None if r.url.startswith(address) else foreign.append(r.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda m: complaints.append(m.text) if "Content Security" in m.text else None,
        )
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(address)
        yield page
        assert (foreign, complaints) == ([], [])


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model", exact=True).select_option(model)


def card(page: Page, title: str) -> Any:
    return page.get_by_role("article", name=title)


def bars(shown: Any) -> list[tuple[str, float]]:
    names = shown.locator(".bars .name").all_inner_texts()
    scores = shown.locator(".bars .score").all_inner_texts()
    return [(name, float(score)) for name, score in zip(names, scores)]


def settled(page: Page) -> None:
    """Wait until what stands in the fields is answered by every model and its tokens are shown."""
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "false")


def test_typing_gives_answer_tokens_and_time(browser: Browser, server: str, folders: Any) -> None:
    with opened(browser, server) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("packed")
        settled(page)  # an example is asked as the page opens
        page.get_by_label("Text", exact=True).fill(TEXT)
        settled(page)
        for title, name in (("1:2 int8", "packed"), ("dense fp32", "dense")):
            model = sb.load(folders[name], threads=1)
            want = [(each["label"], round(each["score"], 3)) for each in model.classify(TEXT)]
            assert bars(card(page, title)) == [
                (label, pytest.approx(score, abs=1.1e-3)) for label, score in want
            ]
            assert re.match(
                r"[\d.,]+ m?s in the model", card(page, title).locator(".time").inner_text()
            )
        tokens = page.locator(".token").all_inner_texts()
        assert tokens[0] == "[CLS]"
        assert tokens[-1] == "[SEP]"
        assert "".join(tokens[1:-1]) == TEXT.replace(" ", "")
        expect(page.locator("#token-count")).to_have_text(str(len(tokens)))
        page.get_by_label("Text", exact=True).fill("reading " * 30)
        settled(page)
        shown = page.locator(".token:not(.cut)").count()
        assert shown == model.max_length < page.locator(".token").count()
        expect(page.locator("#token-count")).to_contain_text("the model reads the first 64")
        page.get_by_label("Text", exact=True).fill(TEXT)
        page.get_by_label("Second text").fill("nobody was at home")
        settled(page)
        pair = model.classify((TEXT, "nobody was at home"))
        assert bars(card(page, "dense fp32"))[0] == (
            pair[0]["label"],
            pytest.approx(pair[0]["score"], abs=1.1e-3),
        )
        # Read out to those who do not see it, but only once the typing is over.
        expect(page.get_by_role("status").last).to_contain_text(pair[0]["label"])


def test_dense_beside_sparse(browser: Browser, server: str) -> None:
    with opened(browser, server) as page:
        settled(page)
        line = page.locator("#comparison")
        expect(line).to_be_visible()
        times = [page.locator(".time b").nth(place).inner_text() for place in (0, 1)]
        expect(line).to_contain_text(f"{times[0]} in the model against {times[1]}")
        found = re.match(
            r"1:2 int8 (was|took) ([\d.]+) times as (fast|long) as dense fp32", line.inner_text()
        )
        assert found
        ours, theirs = (float(time.split()[0]) for time in times)
        ratio = theirs / ours if found[1] == "was" else ours / theirs
        assert float(found[2]) == pytest.approx(ratio, rel=0.06, abs=0.06)
        page.get_by_label("compared with").select_option("nothing")
        settled(page)
        expect(page.get_by_role("article")).to_have_count(1)
        expect(line).to_be_hidden()


def test_each_head_is_asked_what_it_can(browser: Browser, server: str, folders: Any) -> None:
    context = "\U0001f98a\U0001f98a " + TEXT + " a letter from his son"
    with opened(browser, server) as page:
        choose(page, "answers")
        page.get_by_label("Question").fill("who was reading")
        page.get_by_label("Context to find").fill(context)
        settled(page)
        answer = sb.load(folders["answers"], threads=1).answer("who was reading", context)
        expect(page.locator(".span")).to_have_text(answer["text"])
        assert page.locator("mark").text_content() == answer["text"]
        assert page.get_by_label("The context", exact=True).text_content() == context

        choose(page, "ranks")
        page.get_by_label("Query").fill(TEXT)
        texts = ["a letter", "nobody was at home", "reading and reading"]
        page.get_by_label("Documents to rank").fill("\n\n".join(texts))
        settled(page)
        ranked = bars(card(page, "dense fp32"))
        assert sorted(name for name, _ in ranked) == sorted(texts)
        assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)

        choose(page, "<i>odd</i>")
        expect(page.get_by_role("heading", level=1)).to_have_text("<i>odd</i>")
        page.get_by_text("Embed", exact=True).click()
        settled(page)
        expect(page.locator(".vector rect")).to_have_count(32)


FOCUS = """() => {
  const at = document.activeElement;
  const seen = getComputedStyle(at.matches("#tasks input") ? at.nextElementSibling : at);
  if (at === document.body) return ["BODY", "", ""];
  return [at.id || at.innerText || at.value, seen.outlineStyle, seen.outlineWidth];
}"""
ORDER = ("Skip to the answer", "API", "model", "beside", "classify", "A good review", "first")
ORDER += ("second", "ask", "Copy as curl", "Request and response", "at-once", "keep-asking")


def test_the_keyboard_alone_is_enough(browser: Browser, server: str) -> None:
    with opened(browser, server) as page:
        settled(page)
        order = []
        while True:
            page.keyboard.press("Tab")
            name, style, width = page.evaluate(FOCUS)
            if name == "BODY" or name in order[:1]:
                break
            order.append(name)
            assert style != "none", f"the focus on {name} cannot be seen"
            assert float(width.removesuffix("px")) >= 2
        places = [order.index(name) for name in ORDER]
        assert places == sorted(places)

        page.get_by_role("radio").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_label("Texts to compare")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        page.get_by_label("Text", exact=True).focus()
        page.keyboard.press("Control+A")
        page.keyboard.type("reading")
        with page.expect_response(lambda response: "/predict" in response.url):
            page.keyboard.press("Control+Enter")
        settled(page)
        assert "".join(page.locator(".token").all_inner_texts()) == "[CLS]reading[SEP]"

        page.get_by_label("Text", exact=True).press("Control+A")
        page.keyboard.press("Delete")
        expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
        expect(page.get_by_role("button", name="Copy as curl").first).to_be_disabled()


def test_texts_stay_texts(browser: Browser, server: str) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with opened(browser, server) as page:
        choose(page, "ranks")
        page.get_by_label("Query").fill(evil)
        page.get_by_label("Documents to rank").fill(f"{evil}\n</p><svg onload=alert(3)>")
        settled(page)
        assert evil in page.locator(".bars .name").all_inner_texts()
        choose(page, "answers")
        page.get_by_label("Question").fill(evil)
        page.get_by_label("Context to find").fill(f"{evil} {TEXT}")
        settled(page)
        assert page.get_by_label("The context", exact=True).text_content() == f"{evil} {TEXT}"
        assert page.locator("main img, main script, main i:not(.bar i)").count() == 0
        # Were some script to try all the same, the browser itself would refuse.
        with pytest.raises(playwright.Error, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML = '<p>x</p>'")


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, server: str) -> None:
    phone = {"width": 360, "height": 740}
    with opened(browser, server, viewport=phone, is_mobile=True, has_touch=True) as page:
        for model in ("packed", "answers", "ranks", "<i>odd</i>"):
            choose(page, model)
            field = page.locator("textarea").last
            field.fill(f"{'x' * 300} {'word ' * 40}")
            settled(page)
            for details in page.locator("details").all():
                details.evaluate("node => node.open = true")
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths == [360, 360], model
            # Below 16 pixels a phone zooms in when the field gets the focus.
            assert field.evaluate("node => parseFloat(getComputedStyle(node).fontSize)") >= 16


CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const written = [...node.childNodes].some((at) => at.nodeType === 3 && at.data.trim());
    if (!written || !node.checkVisibility() || node.matches(":disabled, svg *")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(style.color), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 80)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""


def test_dark_light_and_without_motion(browser: Browser, server: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with opened(browser, server, color_scheme=scheme, reduced_motion="reduce") as page:
            settled(page)
            for name in ("Ask", "Copy as curl", "Keep asking"):
                page.get_by_role("button", name=name, exact=True).first.hover()
                for contrast, where in page.evaluate(CONTRAST):
                    assert contrast >= 4.5, (scheme, where)
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            duration = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
            assert page.evaluate(duration) == "0s"
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 27)"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt install curl")
def test_the_copied_curl_command_runs(browser: Browser, server: str, folders: Any) -> None:
    text = 'it\'s "old" $HOME `id` \\ \n100% \U0001f98a'
    with opened(browser, server) as page:
        page.get_by_label("Text", exact=True).fill(text)
        settled(page)
        for title, name in (("1:2 int8", "packed"), ("dense fp32", "dense")):
            card(page, title).get_by_role("button", name="Copy as curl").click()
            expect(card(page, title).get_by_role("status")).to_have_text("Copied.")
            command = page.evaluate("navigator.clipboard.readText()")
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            model = sb.load(folders[name], threads=1)
            for got, want in zip(json.loads(done.stdout), model.classify(text), strict=True):
                assert got["label"] == want["label"]
                assert got["score"] == pytest.approx(want["score"], abs=1e-5)
            assert card(page, title).get_by_label("The response").text_content() == done.stdout


def test_keep_asking_draws_latency_and_throughput(browser: Browser, server: str) -> None:
    with opened(browser, server) as page:
        settled(page)
        page.get_by_label("Concurrent requests").select_option("2")
        page.get_by_role("button", name="Keep asking").click()
        for chart in ("#latency", "#throughput"):
            for tone in ("first", "second"):
                expect(page.locator(f"{chart} .{tone} .line").first).to_be_attached()
        # What all clients ask, from the server's own counters.
        expect(page.locator("#throughput .server .line").first).to_be_attached()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Keep asking")).to_be_enabled()
        rows = {
            row.locator("th").inner_text(): row.locator("td").all_inner_texts()
            for row in page.locator("#figures tbody tr").all()
        }
        ours, theirs, ratio = (float(cell.replace(",", "")) for cell in rows["Texts per second"])
        assert ours > 0 < theirs
        assert ratio == pytest.approx(ours / theirs, rel=0.02)
        assert all(float(count.replace(",", "")) > 2 for count in rows["Answers"][:2])
        label = page.get_by_role("img", name="Latency in the last minute")
        described = label.get_attribute("aria-label")
        assert re.search(
            r"1:2 int8: median [\d.]+ m?s, 99th percentile [\d.]+ m?s; dense", described
        )


def test_refusals_are_told_in_a_sentence(browser: Browser, folders: Any) -> None:
    limits = {"max_concurrent_requests": 1, "max_client_batch_size": 4, "payload_limit": 2000}
    trouble = "#trouble"
    server = serving(load_models([folders["ranks"]], threads=1), **limits)
    with server as address, opened(browser, address) as page:
        expect(page.locator(trouble)).to_contain_text("This is too much for one request: ")
        assert page.get_by_role("alert").inner_text().count("\n") == 0
        page.get_by_label("Documents to rank").fill("one\ntwo")
        settled(page)
        expect(page.locator(trouble)).to_be_empty()
        page.get_by_label("Query").fill("far too much " * 200)
        expect(page.locator(trouble)).to_contain_text("2000 bytes")

        page.get_by_label("Query").fill("a query")
        settled(page)
        refusal = overloaded(1)
        page.route(
            "**/rerank",
            lambda route: route.fulfill(status=refusal.status, headers=refusal.headers, json={}),
        )
        page.get_by_label("Query").fill("another query")
        expect(page.locator(trouble)).to_have_text(
            "The server has as many requests as it can handle: try again in 1 s."
        )
        expect(page.locator(".answer").first).to_be_empty()
        expect(page.get_by_role("button", name="Copy as curl")).to_be_enabled()
        page.unroute("**/rerank")
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(trouble)).to_be_empty()
        page.route("**/rerank", lambda route: route.abort())
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(trouble)).to_have_text(
            "The server does not respond: it has stopped or the network is down."
        )


def test_a_key_is_asked_for_and_kept_in_the_session(browser: Browser, folders: Any) -> None:
    server = serving(load_models([folders["dense"]], threads=1), api_key="sesame")
    with server as address, opened(browser, address) as page:
        field = page.get_by_label("API key")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_have_text("The server does not accept this API key.")
        field.fill("sesame")
        page.get_by_role("button", name="Use this key").click()
        settled(page)
        expect(field).to_be_hidden()
        expect(page.locator("#trouble")).to_be_empty()
        stored = "[Object.values({...sessionStorage}), {...localStorage}, document.cookie]"
        assert page.evaluate(stored) == [["sesame"], {}, ""]
        page.get_by_role("button", name="Copy as curl").click()
        command = page.evaluate("navigator.clipboard.readText()")
        assert "sesame" not in command  # commands are passed on; keys should not be
        if shutil.which("curl"):
            variables = {**os.environ, "SPARSEBERT_API_KEY": "sesame"}
            done = subprocess.run(["sh", "-c", command], env=variables, capture_output=True)
            assert json.loads(done.stdout)[0]["label"].startswith("LABEL_")
        page.reload()
        settled(page)
        expect(field).to_be_hidden()
