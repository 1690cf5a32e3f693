"""The page in a real browser: each control does what it says, also by keyboard, and nothing else is asked for."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load

from fabricate import write_matrix_run
from segpatch.names import safe_name
from segpatch.plots import figure
from segpatch.report import viewer, write_report
from segpatch.report.pictures import WRONG, change_map, jpeg_uri, read_rgb, region_of
from segpatch.results import TransferResult, read_transfer
from test_report import write_run

sync_api = pytest.importorskip("playwright.sync_api")
Page, expect = sync_api.Page, sync_api.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Made(NamedTuple):
    """A page, the result that it is of, and its run."""

    path: Path
    result: TransferResult
    run: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    run = write_run(tmp_path_factory.mktemp("run"), photographs=True)
    path = write_report(run, tmp_path_factory.mktemp("page"), photographs=True)
    return Made(path, read_transfer(run), run)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: sync_api.Browser, made: Made) -> Iterator[Page]:
    """The page, opened from disk; whatever the console says or the page asks for fails the test."""
    yield from opened(browser, made.path)


def opened(browser: sync_api.Browser, path: Path, **more) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, **more)
    page = context.new_page()
    page.set_default_timeout(5000)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url[:80]) if not asked_for(request.url, path) else None)
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []


def asked_for(url: str, path: Path) -> bool:
    return url.startswith("data:") or url.partition("#")[0] == path.as_uri()


def rows(page: Page) -> list[list[str]]:
    """Names of the rows of the matrix, as they stand, one list a group below the clean row."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#heat tbody")].slice(1).map((body) =>
             [...body.querySelectorAll("td[data-patch]:nth-child(2)")].map((cell) => cell.dataset.patch))"""
    )


def by_drop(made: Made, group: list[str], victim: str) -> list[str]:
    return sorted(group, key=lambda patch: made.result.cell(patch, victim).miou_drop)


def test_headings_sort_up_down_and_back(page: Page, made: Made):
    before = rows(page)
    heading = page.locator("#heat thead th").nth(1)
    heading.get_by_role("button").click()
    assert rows(page) == [by_drop(made, group, "alpha")[::-1] for group in before]
    expect(heading).to_have_attribute("aria-sort", "descending")
    heading.get_by_role("button").press("Enter")
    assert rows(page) == [by_drop(made, group, "alpha") for group in before]
    expect(heading).to_have_attribute("aria-sort", "ascending")
    heading.get_by_role("button").press("Space")
    assert rows(page) == before and heading.get_attribute("aria-sort") is None
    names = page.locator("#heat thead th").nth(0)
    names.get_by_role("button").click()
    assert rows(page) == [sorted(group) for group in before] != before
    expect(names).to_have_attribute("aria-sort", "ascending")


def test_arrow_keys_walk_the_matrix_and_enter_opens_a_cell(page: Page, made: Made):
    cells = page.locator("button.open")
    assert cells.evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1  # a single stop of Tab
    cells.first.focus()
    for key in ("ArrowLeft", "ArrowUp"):  # there is nothing there
        page.keyboard.press(key)
        expect(cells.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    focused = page.locator("button.open:focus")
    wanted = "random/full/s0 on b<i>eta"
    assert focused.get_attribute("aria-label").startswith(f"{wanted}: ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name=wanted)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(focused).to_have_attribute("aria-label", re.compile(f"^{wanted}: "))


def test_an_open_cell_holds_its_numbers_classes_and_scenes(page: Page, made: Made):
    cell = made.result.cell("alpha/strong/s0", "b<i>eta")
    page.locator('td[data-patch="alpha/strong/s0"][data-victim="b<i>eta"]').click()
    dialog = page.get_by_role("dialog")
    shown = dialog.inner_text()
    low, high = cell.over_random.ci95
    for text in (
        f"{figure(cell.miou_drop)} [{figure(cell.ci95[0])}, {figure(cell.ci95[1])}]",
        f"{figure(cell.over_random.drop)} [{figure(low)}, {figure(high)}]",
        f"{figure(cell.miou_clean_outside)} clean, {figure(cell.miou)} attacked",
    ):
        assert text in shown
    said = {"transfers": "Transfers", "does not": "Does not transfer", "undecided": "Undecided"}
    assert said[cell.over_random.verdict] in shown
    table = dialog.locator("tbody tr")
    lost = {name: cell.iou_clean_outside[name] - cell.iou[name] for name in made.result.classes[:3]}
    names = table.locator("th").all_inner_texts()
    assert names == [*sorted(lost, key=lost.__getitem__, reverse=True), "unicorn"]
    assert table.nth(0).locator("td").nth(2).inner_text() == figure(max(lost.values()))
    assert table.nth(0).locator("td").nth(4).inner_text() != "–"  # it turns into something
    dialog.locator(".thumbs button").nth(1).click()
    expect(dialog).to_be_hidden()
    assert chosen(page) == ["drive/1", "b<i>eta", "alpha/strong/s0"]
    expect(page.locator("#stage")).to_have_attribute("data-shown", "drive/1|b<i>eta|alpha/strong/s0")


@pytest.mark.parametrize(
    ("patch", "victim", "said"),
    [("grey", "alpha", "A control"), ("alpha/strong/s1", "alpha", "Its own network")],
)
def test_white_box_cells_and_controls_are_called_so(page: Page, patch: str, victim: str, said: str):
    cell = page.locator(f'td[data-patch="{patch}"][data-victim="{victim}"]')
    assert ("own" in (cell.get_attribute("class") or "")) == (said == "Its own network")
    cell.click()
    expect(page.get_by_role("dialog").get_by_text(said)).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def choice(page: Page, name: str) -> sync_api.Locator:
    return page.get_by_role("combobox", name=name, exact=True)


def chosen(page: Page) -> list[str]:
    return [page.locator(f"#{name} option:checked").inner_text().partition(" (")[0]
            for name in ("scene", "network", "patch")]  # fmt: skip


def pixels(page: Page, canvas: str = "below") -> list[list[int]]:
    """The colours on a canvas, row by row."""
    return page.evaluate(
        """(id) => {
          const { width, height } = document.getElementById(id);
          const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
          context.drawImage(document.getElementById(id), 0, 0);
          const all = context.getImageData(0, 0, width, height).data;
          return Array.from({ length: width * height }, (_, i) => [...all.slice(4 * i, 4 * i + 3)]);
        }""",
        canvas,
    )


def test_the_viewer_shows_what_is_chosen(page: Page, made: Made):
    choice(page, "Network").select_option("b<i>eta")
    choice(page, "Patch").select_option("grey")
    page.get_by_label("Changed pixels").check()
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-shown", "drive/0|b<i>eta|grey")
    expect(stage).to_have_attribute("data-view", "changed")
    folder, seen = made.run / "scenes" / safe_name("drive/0"), safe_name("b<i>eta")
    maps = [
        np.asarray(Image.open(folder / name)) for name in ("labels.png", f"{seen}/clean.png", f"{seen}/grey.png")
    ]
    region = region_of(folder, "grey")
    drawn = change_map(*maps, region, made.result.colours)
    at_page = np.array(pixels(page), np.uint8).reshape(drawn.shape)
    inside = np.s_[region.top : region.top + region.height, region.left : region.left + region.width]
    at_page[inside] = drawn[inside]  # the frame is drawn with other edges
    assert (at_page == WRONG).all(-1).any() and np.array_equal(at_page, drawn)
    wrong = (drawn == WRONG).all(-1).sum() / (maps[0] != 255).sum()
    expect(page.get_by_role("status")).to_have_text(re.compile(rf"{100 * wrong:.1f}|{100 * wrong:.0f}"))
    page.get_by_label("Labels", exact=True).check()
    expect(stage).to_have_attribute("data-view", "labels")
    colours = np.array([*made.result.colours, (24, 24, 27)], np.uint8)
    shown = np.array(pixels(page), np.uint8).reshape(drawn.shape)
    assert np.array_equal(shown, colours[np.where(maps[0] == 255, 4, maps[0])])


def test_the_slider_lays_clean_over_attacked(page: Page):
    slider, above, stage = page.get_by_role("slider"), page.locator("#above"), page.locator("#stage")
    expect(above).to_have_css("clip-path", "inset(0px 50% 0px 0px)")
    slider.focus()
    page.keyboard.press("End")
    expect(above).to_have_css("clip-path", "inset(0px 0% 0px 0px)")
    page.keyboard.press("Home")
    expect(above).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
    expect(slider).to_have_attribute("aria-valuetext", "0 % clean")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    expect(page.locator("#pointed")).to_have_text(re.compile("^Here: label .+, clean .+, attacked .+\\.$"))
    page.mouse.down()
    expect(slider).to_have_value("25")
    page.mouse.up()
    assert pixels(page, "above") != pixels(page, "below")


def test_the_slider_lays_the_photograph_over_the_attacked_one(page: Page, made: Made):
    choice(page, "Patch").select_option("grey")
    page.get_by_label("Photograph").check()
    expect(page.locator("#stage")).to_have_attribute("data-view", "photograph")
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    expect(page.locator("#above")).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
    clean, attacked = (np.array(pixels(page, name), int).reshape(24, 48, 3) for name in ("above", "below"))
    folder = made.run / "scenes" / safe_name("drive/0")
    top, left, height, width = region_of(folder, "grey")
    there = np.s_[top : top + height, left : left + width]
    kept = base64.b64decode(jpeg_uri(read_rgb(folder / "image.png")).partition(",")[2])
    assert abs(clean - np.asarray(Image.open(io.BytesIO(kept)), int))[:top].mean() < 2, "of one decoder or another"
    assert abs(attacked[there] - 128).max() <= 1
    changed = (attacked != clean).any(-1)
    changed[there] = False
    assert not changed.any()


def test_a_page_without_photographs_does_not_offer_them(browser: sync_api.Browser, made: Made, tmp_path: Path):
    for page in opened(browser, write_report(made.run, tmp_path)):
        expect(page.locator("#stage")).to_have_attribute("data-view", "compare")
        expect(page.locator("#photograph")).to_be_hidden()


def test_the_viewer_can_be_hurried(page: Page):
    """A choice changed before the last one is read or decoded: what stands in the controls is shown."""
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("data-view", "compare")
    hurry = """([network, ...views]) => {
      const told = (one) => one.dispatchEvent(new Event("change", { bubbles: true }));
      const select = document.getElementById("network"), { view } = document.getElementById("viewer").elements;
      if (network) { select.value = network; told(select); }
      for (const name of views) { view.value = name; told(document.getElementById("view")); }
    }"""
    page.evaluate(hurry, ["b<i>eta", "changed"])
    expect(stage).to_have_attribute("data-shown", re.compile(r"\|b<i>eta\|"))
    expect(stage).to_have_attribute("data-view", "changed")
    page.evaluate(hurry, ["", "photograph", "labels"])
    page.wait_for_timeout(200)  # the photograph would be decoded by now
    expect(stage).to_have_attribute("data-view", "labels")


def test_the_viewer_works_by_keyboard(page: Page):
    choice(page, "Scene").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#stage")).to_have_attribute("data-view", "changed")
    expect(page.locator("#stage")).to_have_attribute("data-shown", re.compile(r"^drive/1\|b<i>eta\|"))


def test_a_patch_can_be_taken_from_the_page(page: Page, made: Made, tmp_path: Path):
    record = next(patch for patch in made.result.patches if patch.name == "alpha/strong/s0")
    card = page.locator('article[data-patch="alpha/strong/s0"]')
    assert card.locator(".drops li").count() == 2
    with page.expect_download() as download:
        card.get_by_role("link").click()
    assert download.value.suggested_filename == "alpha_strong_s0.safetensors"
    taken = Path(download.value.path()).read_bytes()
    assert taken == (made.run / record.file).read_bytes() and load(taken)


def test_scenes_that_do_not_fit_are_told_of(
    browser: sync_api.Browser, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viewer, "MOST_BYTES", 1)
    for page in opened(browser, write_report(made.run, tmp_path)):
        expect(page.get_by_text("The first 1 of the 2 scenes that the run kept")).to_be_visible()
        expect(page.locator("#scene option")).to_have_count(1)


def test_without_its_script_the_page_can_be_read(browser: sync_api.Browser, made: Made):
    for page in opened(browser, made.path, java_script_enabled=False):
        expect(page.locator("#viewer")).to_be_hidden()
        expect(page.get_by_text("Open a cell")).to_be_hidden()
        expect(page.locator("noscript .strip img").first).to_be_visible()
        cell = made.result.cell("alpha/strong/s0", "alpha")
        expect(page.locator('td[data-patch="alpha/strong/s0"]').first).to_contain_text(figure(cell.miou_drop))


def test_a_bare_result_opens_without_complaint(browser: sync_api.Browser, made: Made, tmp_path: Path):
    shutil.copy(made.run / "transfer.json", tmp_path)
    for page in opened(browser, write_report(tmp_path, tmp_path / "page")):
        page.locator("td.own").first.click()
        expect(page.get_by_role("dialog").get_by_text("Classes, the largest loss first")).to_be_visible()
        assert page.locator("#scenes, .thumbs").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
def test_nothing_sticks_out_and_text_can_be_read(browser: sync_api.Browser, made: Made, width: int, scheme: str):
    for page in opened(browser, made.path, color_scheme=scheme, reduced_motion="reduce"):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        shades = page.evaluate(
            "(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        ink, paper = (sum(map(int, re.findall(r"\d+", shade)[:3])) for shade in shades)
        assert abs(ink - paper) > 550 and (ink > paper) == (scheme == "dark")
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        if folder := os.environ.get("SEGPATCH_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"page-{width}-{scheme}.png", full_page=True)


@pytest.mark.long
def test_a_large_study_stays_small_and_opens_quickly(browser: sync_api.Browser, tmp_path: Path):
    """Seven networks, a patch each, twelve scenes of 512 x 1024."""
    run = write_matrix_run(tmp_path / "run", networks=7, scenes=12, size=(512, 1024))
    path = write_report(run, tmp_path / "page")
    assert 3_000_000 < path.stat().st_size < 15_000_000
    for page in opened(browser, path):
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        assert 0 < loaded < 2000
        expect(page.locator("#stage")).to_have_attribute("data-view", "compare")
        page.locator("td.own").last.click()
        assert page.locator(".thumbs img").count() == 12
