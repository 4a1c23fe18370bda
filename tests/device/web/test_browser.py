"""The pages in Debian's Chromium: what a person sees, clicks and types."""

import os
import re
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from phantom_device import PACS, PhantomDevice, header

from focalis.device.config import Config
from focalis.device.nudging import cut, grow, redraw
from focalis.device.web.app import create_app
from focalis.device.web.site import VIEWER
from focalis.dicom import read_segmentation, read_series

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
HOSTILE = "<script>document.body.remove()</script>^<b>"


@pytest.fixture(scope="module")
def browser():
    playwright = None
    try:
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright()
    except ImportError:
        pass
    if playwright is None or CHROMIUM is None:
        lacking = (
            "the Python package playwright" if playwright is None else "chromium (apt-get install chromium)"
        )
        if os.environ.get("FOCALIS_REQUIRE_PEERS") == "1":
            pytest.fail(f"FOCALIS_REQUIRE_PEERS is 1, but there is no browser: {lacking} is not installed")
        pytest.skip(f"not installed: {lacking}")
    with playwright as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    import uvicorn

    phantom = PhantomDevice(
        tmp_path_factory.mktemp("device"), Config(destinations=(PACS,), store={"least_free_gb": 0})
    )
    phantom.first = phantom.study("Lindqvist^Maja", seed=1, shape_zyx=(16, 32, 32), share=0.02)
    phantom.hostile = phantom.study(HOSTILE, seed=2)
    server = uvicorn.Server(uvicorn.Config(create_app(phantom.device()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    phantom.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield phantom
    server.should_exit = True
    thread.join(10)
    phantom.close()


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def visit(browser, device, complaints):
    """Open an address in a window of its own; what its console complains of fails the test."""
    contexts = []

    def visit(path="/", width=1440, height=900, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.goto(device.address + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def study(visit, device):
    def study(task_id=None, **options):
        page = visit(f"/studies/{task_id or device.first}", **options)
        page.wait_for_selector(".plane[data-shown] >> nth=2", timeout=120_000)
        return page

    return study


def shown(page, plane="axial"):
    return int(page.get_attribute(f"[data-plane={plane}]", "data-shown"))


def test_the_work_list_opens_a_study_by_keyboard(visit):
    page = visit()
    page.wait_for_function("document.querySelectorAll('a.open').length === 2")
    page.keyboard.press("j")
    first = page.evaluate("document.activeElement.getAttribute('href')")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('href')") != first
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/studies/"))

    assert outline != "none"


def test_the_work_list_is_live(visit, device):
    page = visit()
    device.receive("New^Arrival", seed=7, complete=False)

    page.wait_for_selector("text=New, Arrival")


def test_the_work_list_is_searched_in_the_browser(visit):
    page = visit()
    page.wait_for_selector("text=Lindqvist, Maja")
    page.fill("#find", "lindq maja")

    assert page.locator("tbody tr:visible").count() == 1
    assert "lindq" not in page.url


def test_a_name_that_is_markup_is_read_and_not_run(visit, study, device):
    page = visit()
    page.get_by_text("<script>document.body.remove()</script>, <b>").wait_for()

    page = study(device.hostile)

    assert page.inner_text("h1") == "<script>document.body.remove()</script>, <b>"
    assert page.title() == "<script>document.body.remove()</script>, <b> · Focalis"


def test_slices_move_by_keys_slider_and_click(study):
    page = study()
    start = shown(page)
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(f"[data-plane=axial][data-shown='{start + 1}']")
    page.keyboard.press("2")
    coronal = shown(page, "coronal")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(f"[data-plane=coronal][data-shown='{coronal - 1}']")
    page.fill("[data-plane=sagittal] input", "3")
    page.wait_for_selector("[data-plane=sagittal][data-shown='3']")

    box = page.locator("[data-plane=axial] img").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.755, box["y"] + box["height"] * 0.255)

    page.wait_for_selector("[data-plane=sagittal][data-shown='24']")  # of 32 columns
    page.wait_for_selector("[data-plane=coronal][data-shown='8']")


def test_keys_judge_and_walk_after_the_slider_was_used(study):
    page = study()
    page.focus("[data-plane=axial] input")
    start = shown(page)
    page.keyboard.press("ArrowUp")  # the slider's own key, once
    page.wait_for_selector(f"[data-plane=axial][data-shown='{start + 1}']")
    page.keyboard.press("j")

    assert page.get_attribute("tr.chosen", "data-lesion") == "2"


def test_no_slice_stands_under_the_number_of_another(study, complaints):
    page = study()
    page.context.set_offline(True)
    for _ in range(3):
        page.keyboard.press("ArrowUp")

    lost = page.locator("[data-plane=axial] .lost")
    lost.wait_for()
    assert lost.inner_text() == "This slice was not loaded: no connection to the device"
    assert not page.is_visible("[data-plane=axial] img")

    page.context.set_offline(False)  # it asks again by itself
    page.locator("[data-plane=axial] img").wait_for()
    assert not lost.is_visible()
    assert page.locator("[data-plane=axial] img").bounding_box()["width"] > 200
    complaints.clear()  # the browser's own, of the lost connection


def test_a_row_leads_the_pictures_to_its_lesion(study):
    page = study()
    lesions = page.evaluate("JSON.parse(document.getElementById('study').textContent).lesions")
    page.click("tr[data-lesion='3'] td:nth-child(2)")
    z, y, x = lesions[2]["centre_zyx"]

    for plane, index in (("axial", z), ("coronal", y), ("sagittal", x)):
        page.wait_for_selector(f"[data-plane={plane}][data-shown='{index}']")
    page.keyboard.press("k")
    page.wait_for_selector(f"[data-plane=axial][data-shown='{lesions[1]['centre_zyx'][0]}']")
    assert page.get_attribute("tr.chosen", "data-lesion") == "2"


def test_lesions_are_judged_and_the_correction_is_sent(study, device):
    page = study(device.hostile)
    assert page.is_disabled("#correction button")
    page.keyboard.press("a")
    page.wait_for_selector("tr[data-lesion='2'].chosen")  # a verdict moves on
    page.keyboard.press("r")
    page.wait_for_selector("tr[data-lesion='2'][data-verdict=rejected]")
    page.click("tr[data-lesion='3'] button.accept")
    page.wait_for_selector("tr[data-lesion='3'][data-verdict=accepted]")
    verdicts = {each.lesion: each.verdict for each in device.store.reviews(device.hostile)}
    assert verdicts == {1: "accepted", 2: "rejected", 3: "accepted"}

    page.click("#correction button")

    page.wait_for_selector("text=Corrected Segmentation", timeout=120_000)
    kinds = {each.kind for each in device.store.results(device.hostile)}
    assert kinds == {"seg", "correction", "correction-rtstruct", "correction-sr"}


def test_small_findings_are_folded_and_judged_with_one_click(study, device):
    task_id = device.study("Many^Findings", seed=9, shape_zyx=(16, 32, 32), share=0.02, lesions=8)
    page = study(task_id)
    lesions = page.evaluate("JSON.parse(document.getElementById('study').textContent).lesions")
    sizes = sorted(each["longest_mm"] for each in lesions)
    limit = int(sizes[len(sizes) // 2]) + 1
    small = [each["number"] for each in lesions if each["longest_mm"] < limit]
    assert 0 < len(small) < len(lesions)

    page.fill("#fold", str(limit))

    assert page.inner_text("#folded-text") == f"{len(small)} below {limit} mm, {len(small)} undecided"
    assert page.locator("tr[data-lesion]:visible").count() == len(lesions) - len(small)
    page.click("[data-folded=rejected]")
    page.wait_for_selector(f"text={len(small)} of {len(lesions)} decided")
    assert page.evaluate("document.getElementById('decided').value") == len(small)
    page.click("[data-all=accepted]")
    page.wait_for_selector(f"text={len(lesions)} of {len(lesions)} decided")
    verdicts = {each.lesion: each.verdict for each in device.store.reviews(task_id)}
    assert {number for number, verdict in verdicts.items() if verdict == "rejected"} == set(small)
    assert page.is_enabled("#correction button")

    page.keyboard.press("u")
    page.wait_for_selector(f"text={len(small)} of {len(lesions)} decided")
    page.click("#undo")
    page.wait_for_selector(f"text=0 of {len(lesions)} decided")
    assert device.store.reviews(task_id) == []
    assert page.is_disabled("#undo")
    page.wait_for_selector(".plane[data-waiting]", state="detached")  # no picture is still on its way


def test_the_earlier_study_is_shown_side_by_side_and_scrolls_along(study, device):
    task_id = device.study("Follow^Up", seed=5, shape_zyx=(16, 32, 32), StudyInstanceUID="1.2.9")
    device.follow(task_id, device.first)
    page = study(task_id)
    page.keyboard.press("b")
    page.wait_for_selector("#earlier .plane.active[data-shown]")
    page.locator("#slices input >> nth=0").fill("6")

    page.wait_for_selector("#earlier .plane.active[data-shown='5']")
    page.locator("#earlier input >> nth=0").fill("9")
    page.wait_for_selector("#slices .plane.active[data-shown='10']")
    page.locator("#slices input >> nth=0").fill("0")
    page.wait_for_selector("#earlier .plane.active[data-away]")
    page.keyboard.press("2")

    assert page.locator("#earlier .plane.active").get_attribute("data-plane") == "coronal"
    boxes = [page.locator(f"#{each} .plane.active").bounding_box() for each in ("slices", "earlier")]
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"], abs=3)
    page.keyboard.press("b")
    assert not page.locator("#earlier").is_visible()


def test_a_second_channel_is_shown_side_by_side_with_its_own_window(study, device):
    one = {"StudyInstanceUID": "1.2.77", "FrameOfReferenceUID": "1.2.78"}
    task_id = device.study(
        "Two^Channels", seed=31, shape_zyx=(16, 32, 32), SeriesDescription="T1", Modality="MR", **one
    )
    # twice as coarse, half as high, and 4 mm lower
    device.receive("Two^Channels", seed=32, shape_zyx=(8, 16, 16), spacing_zyx_mm=(4, 2, 2), **one)
    page = study(task_id)
    page.keyboard.press("b")
    page.wait_for_selector("[data-count='2'] .pane:nth-child(2) .plane.active[data-shown]", timeout=120_000)
    other = page.locator(".pane:nth-child(2)")
    page.locator("#slices input >> nth=0").fill("12")
    page.wait_for_selector(".pane:nth-child(2) .plane.active[data-shown='12']")
    sizes = page.evaluate(
        "[...document.querySelectorAll('.plane.active img')].map((each) => [each.naturalWidth, each.naturalHeight])"
    )
    assert sizes[0] == sizes[1]
    for _ in range(2):
        page.keyboard.press("+")
    page.wait_for_selector("#zoom >> text=2")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    other.locator("select").select_option("Narrow")
    page.wait_for_timeout(300)
    narrow = [each for each in asked if "window=Narrow" in each]
    assert narrow
    assert all("/beside/" in each for each in narrow)


def test_a_click_segments_the_lesion_there(visit, device, monkeypatch):
    guided = replace(device.models["nodules"], header=header(guided=True))
    monkeypatch.setitem(device.models, "nodules", guided)
    task_id = device.hold(device.receive("Clicked^Case", seed=9, shape_zyx=(16, 32, 32))[0])
    said = {"outcome": "done", "said": "shows a lesion", "label": "lesion"}
    device.pointed = lambda at: said | {"voxels_zyx": [list(at)]}
    page = visit(f"/studies/{task_id}")
    page.wait_for_selector(".plane[data-shown] >> nth=2", timeout=120_000)
    assert page.locator("tr[data-lesion]").count() == 0
    page.locator("#pointing").check()
    page.locator("[data-plane=axial] img").click(position={"x": 40, "y": 40})
    page.wait_for_url(re.compile("lesion=1"))
    page.wait_for_selector(".plane[data-shown] >> nth=2", timeout=120_000)
    assert page.locator("tr[data-lesion='1']").count() == 1


def test_a_lesion_is_pointed_at_by_keyboard(visit, device, monkeypatch):
    guided = replace(device.models["nodules"], header=header(guided=True))
    monkeypatch.setitem(device.models, "nodules", guided)
    task_id = device.hold(device.receive("Keyed^Case", seed=9, shape_zyx=(16, 32, 32))[0])
    asked = []

    def pointed(at):
        asked.append(at)
        return {
            "outcome": "done",
            "said": "shows a lesion",
            "label": "lesion",
            "voxels_zyx": [list(at)],
        }

    device.pointed = pointed
    page = visit(f"/studies/{task_id}")
    page.wait_for_selector(".plane[data-shown] >> nth=2", timeout=120_000)
    for key in ("ArrowUp", "Shift+ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowDown", "p"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile("lesion=1"))
    assert asked == [(9, 17, 14)]  # from the middle, 8, 16, 16


@pytest.fixture
def boxed(device):
    """A study with a box of 5 x 8 x 8 voxels around (8, 16, 16) as its only lesion."""
    truth = np.zeros((16, 32, 32), dtype=np.uint8)
    truth[6:11, 12:20, 12:20] = 1
    number = len(device.store.series())
    series_uid, _ = device.receive(f"Boxed^{number}", seed=100 + number, shape_zyx=(16, 32, 32))
    return device.finish(series_uid, truth), truth > 0


def corrected(page, device, task_id):
    """Send the correction; its voxels."""
    page.locator("#correction button").press("Enter")
    page.wait_for_selector("text=Corrected Segmentation", timeout=120_000)
    paths = {each.kind: each.path for each in device.store.results(task_id)}
    instances = device.store.instances(device.store.task(task_id).series_uid)
    (mask,) = read_segmentation(paths["correction"], read_series([each.path for each in instances])).values()
    return mask


@pytest.mark.slow
def test_an_outline_is_edited_and_sent_with_the_keyboard_alone(study, device, boxed):
    task_id, wanted = boxed
    page = study(task_id)

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)

    said = page.locator("#edit-said")
    press("g")
    said.get_by_text("Lesion 1 grown: 0.96 ml").wait_for()  # 5 slices of 96 voxels of 2 mm3
    press("2", "s")
    said.get_by_text("Lesion 1 shrunk").wait_for()
    press("u")
    said.get_by_text("Lesion 1 as before the last edit: 0.96 ml").wait_for()
    # a line along row 18 of the axial plane: what lies below it goes
    centre = page.evaluate("JSON.parse(document.getElementById('study').textContent).lesions[0].centre_zyx")
    press("1", *["Shift+ArrowDown"] * (18 - centre[1]), "c", *["Shift+ArrowRight"] * 3, "c")
    said.get_by_text("Lesion 1 cut").wait_for()
    wanted = cut(grow(wanted, 0), 0, np.array([[18.0, 0.0], [18.0, 3.0]]))
    # a triangle in the topmost slice
    press(*["ArrowUp"] * (10 - centre[0]), "d", *["Shift+ArrowUp"] * 4, "d", *["Shift+ArrowLeft"] * 5, "d")
    assert page.is_visible("#close")
    press("Enter")
    said.get_by_text("Lesion 1 redrawn").wait_for()
    column = centre[2] + 3
    wanted = redraw(wanted, 0, 10, np.array([[18.0, column], [14.0, column], [14.0, column - 5.0]]))
    assert page.get_attribute("tr[data-lesion='1']", "data-verdict") == "accepted"
    assert page.locator("tr[data-edited]").count() == 1

    np.testing.assert_array_equal(corrected(page, device, task_id), wanted)
    # the edits can be undone after the page was loaded again
    page.wait_for_selector(".plane[data-shown] >> nth=2")
    press("u")
    said.get_by_text("as before the last edit").wait_for()
    assert [each.operation for each in device.store.edits(task_id)] == ["grow", "cut"]


@pytest.mark.slow
def test_an_outline_is_cut_and_redrawn_by_touch(study, device, boxed):
    task_id, wanted = boxed
    page = study(task_id, width=820, height=1100, has_touch=True)
    touch = page.context.new_cdp_session(page)
    said = page.locator("#edit-said")
    for _ in range(2):
        page.locator("#zoom-in").tap()
    page.wait_for_selector("#zoom >> text=2")
    page.wait_for_selector(".plane[data-waiting]", state="detached")
    box = page.locator("[data-plane=axial] img").bounding_box()
    (lesion,) = page.evaluate("JSON.parse(document.getElementById('study').textContent).lesions")
    middle, top, left = (at - back for at, back in zip(lesion["centre_zyx"], (0, 8, 8), strict=True))

    def spot(row, column):
        """Voxels of the part that is shown: 16 x 16 around the lesion's middle."""
        return {
            "x": box["x"] + (column - left + 0.5) / 16 * box["width"],
            "y": box["y"] + (row - top + 0.5) / 16 * box["height"],
        }

    def drag(*way):
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [spot(*way[0])]})
        for each in way[1:]:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [spot(*each)]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    page.locator("[data-edit=grow]").tap()
    said.get_by_text("Lesion 1 grown").wait_for()
    page.locator("[data-pen=cut]").tap()
    drag((17.6, 9), (17.6, 14), (17.6, 20))
    said.get_by_text("Lesion 1 cut").wait_for()
    page.locator("#other").tap()
    said.get_by_text("Lesion 1 cut: 0.28 ml").wait_for()
    page.wait_for_selector(".plane[data-waiting]", state="detached")
    wanted = cut(grow(wanted, 0), 0, np.array([[17.6, 9.0], [17.6, 20.0]]), keep_smaller=True)
    page.locator("[data-pen=redraw]").tap()
    for corner in ((10.4, 10.4), (10.4, 20.6), (20.6, 20.6)):
        page.touchscreen.tap(*spot(*corner).values())
    page.locator("#close").tap()
    said.get_by_text("Lesion 1 redrawn").wait_for()
    wanted = redraw(wanted, 0, middle, np.array([[10.4, 10.4], [10.4, 20.6], [20.6, 20.6]]))
    sizes = page.evaluate("[...document.querySelectorAll('#edits button')].map((each) => each.offsetHeight)")
    assert min(each for each in sizes if each) >= 44  # for a finger

    np.testing.assert_array_equal(corrected(page, device, task_id), wanted)


def test_two_fingers_enlarge_and_a_stroke_that_is_broken_off_changes_nothing(study, device, boxed):
    task_id, _ = boxed
    page = study(task_id, width=820, height=1100, has_touch=True)
    touch = page.context.new_cdp_session(page)
    box = page.locator("[data-plane=axial] img").bounding_box()

    def fingers(kind, *right_of_the_middle):
        middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        points = [
            {**middle, "x": middle["x"] + right, "id": number}
            for number, right in enumerate(right_of_the_middle)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    page.locator("[data-pen=cut]").tap()
    for apart in ((-40,), (-40, 40)):
        fingers("touchStart", *apart)
    for apart in ((-60, 60), (-120, 120)):
        fingers("touchMove", *apart)
    fingers("touchEnd")
    page.wait_for_selector("#zoom >> text=3")
    fingers("touchStart", -60)
    for right in (0, 60):
        fingers("touchMove", right)
    ink = page.locator("[data-plane=axial] .ink polyline")
    assert len(ink.get_attribute("points").split()) > 1  # a line
    fingers("touchCancel")
    page.wait_for_function(
        "!document.querySelector('[data-plane=axial] .ink polyline').getAttribute('points')"
    )
    fingers("touchStart", -60)
    for right in (0, 60):
        fingers("touchMove", right)
    fingers("touchEnd")
    page.locator("#edit-said").get_by_text("Lesion 1 cut").wait_for()

    assert [each.operation for each in device.store.edits(task_id)] == ["cut"]


def test_without_javascript_a_study_is_read_and_judged(visit, study, device):
    study()  # its images have been read
    page = visit(f"/studies/{device.first}?lesion=2", java_script_enabled=False)
    assert page.get_attribute("tr.chosen", "data-lesion") == "2"
    assert page.locator("[data-plane=axial] img").bounding_box()["width"] > 200
    page.click("tr[data-lesion='2'] button.reject")

    assert page.get_attribute("tr[data-lesion='2']", "data-verdict") == "rejected"


LUMINANCE = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const apart = ":disabled, .cut, .volume, option, .skip";
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = element.textContent.trim().slice(0, 30);
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(apart)) continue;
    const a = light(parse(getComputedStyle(element).color)), b = light(ground(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.className} ${text}: ${ratio.toFixed(2)}`);
  }
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_text_has_the_contrast_of_wcag_aa(visit, study, device, scheme):
    device.store.quarantine(b"junk", "is not DICOM", "upload")
    for level in ("info", "warning", "error"):
        device.store.event(level, "a line")
    pages = [
        study(scheme=scheme),
        *(visit(path, scheme=scheme) for path in ("/", "/models", "/system", "/upload")),
    ]

    assert [page.evaluate(LUMINANCE) for page in pages] == [[]] * 5
    body = pages[0].evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", body)[:3])) > 380) is (scheme == "light")


@pytest.mark.parametrize("width", [pytest.param(820, marks=pytest.mark.slow), 390])
def test_narrow_screens_need_no_sideways_scrolling(visit, study, width):
    pages = [
        study(width=width, height=1100),
        *(visit(path, width=width) for path in ("/", "/models", "/system")),
    ]

    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert pages[0].locator("[data-plane=axial] img").bounding_box()["width"] > width * 0.5


def test_the_volume_is_shown_where_the_viewer_was_built(study):
    if not VIEWER.is_file():
        if os.environ.get("FOCALIS_REQUIRE_PEERS") == "1":
            pytest.fail("FOCALIS_REQUIRE_PEERS is 1, but the viewer is not built: run make viewer")
        pytest.skip("the viewer is not built (make viewer)")
    page = study(width=900, height=700)
    page.click("#show-volume")
    page.wait_for_selector("#volume[data-ready]", timeout=120_000)
    page.wait_for_timeout(500)

    picture = page.locator("#canvas").screenshot()

    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)
    amber = (pixels[..., 0] - pixels[..., 2] > 60) & (pixels[..., 1] > 80)
    assert pixels.std() > 20  # an image, not a black box
    assert amber.sum() > 50  # with the lesions on it
    page.click("#show-slices")
    assert page.is_visible("#slices")
