"""The report in a real browser: it loads in silence, moves as the flow does, and can be used by
everyone."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from browsing import CONTRASTS, look, needs_browser, opened
from PIL import Image
from problems import normal
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

import cnf
from cnf.cli import main
from cnf.report.animation import PARTICLES, TIMES
from cnf.report.data import report_data
from cnf.rows import Rows

pytestmark = needs_browser
NAMES = ["length (m)", "b<i>", "c"]
CONTROLS = "button, input, select, a[href], [tabindex='0']"
# What a screen reader calls an element, as far as this page uses the rules of accessible names.
ACCESSIBLE_NAME = """
const element = arguments[0];
const of = id => document.getElementById(id).textContent;
return element.getAttribute("aria-label")
  || (element.getAttribute("aria-labelledby") ? of(element.getAttribute("aria-labelledby")) : "")
  || [...(element.labels || [])].map(label => label.textContent).join(" ")
  || (element.tagName === "BUTTON" ? element.textContent : "");
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a model of it, and its report."""
    room = tmp_path_factory.mktemp("browser")
    x = normal(300, 3).numpy()
    x[:, 0] += 3 * np.sign(x[:, 0])  # a flow has to move for it
    x = x @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 3]]) + 10
    pd.DataFrame(x, columns=NAMES).to_csv(room / "t.csv", index=False)
    fit = ["fit", room / "t.csv", "-o", room / "m.safetensors", "--steps", "30", "--width", "8"]
    report = ["report", room / "m.safetensors", room / "t.csv", "-o", room / "r.html"]
    for command in (fit, report):
        assert main([str(part) for part in command]) == 0
    return room


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with opened() as found:
        yield found


@pytest.fixture
def page(browser: webdriver.Chrome, model: Path) -> webdriver.Chrome:
    """The report, opened afresh from the disk; what came before is forgotten."""
    look(browser)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get((model / "r.html").as_uri())
    WebDriverWait(browser, 60).until(
        lambda b: b.find_element(By.ID, "picture").get_attribute("data-ready")
    )
    return browser


def drawn(page: webdriver.Chrome, trace: int = 2) -> np.ndarray:
    """Where the dots of a trace are, (n, 2); the particles are trace 2."""
    script = "const d = document.getElementById('picture').data[arguments[0]]; return [[...d.x], [...d.y]]"
    return np.array(page.execute_script(script, trace), dtype=float).T


def slide(page: webdriver.Chrome, t: float) -> None:
    slider = page.find_element(By.ID, "time")
    page.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        slider,
        t,
    )


def clock(page: webdriver.Chrome) -> float:
    return float(page.find_element(By.ID, "clock").text)


def expected(model: Path, k: int, columns: list[int]) -> np.ndarray:
    """The same particles by the flow itself."""
    flow = cnf.load(model / "m.safetensors").flow
    table = pd.read_csv(model / "t.csv").to_numpy()
    subject = report_data(flow, Rows(torch.tensor(table)), None, None)
    with torch.no_grad():
        path = subject.flow.trajectory(subject.base_points(PARTICLES), torch.linspace(0, 1, TIMES))
        return path[k][:, columns].numpy()


def test_it_loads_in_silence_and_asks_nothing_of_the_network(page):
    slide(page, 0.5)
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)


@pytest.mark.parametrize("k", [0, TIMES // 3, TIMES - 1])
def test_the_slider_carries_particles_along_the_flow(page, model, k):
    t = k / (TIMES - 1)
    slide(page, t)
    assert clock(page) == pytest.approx(t, abs=0.006)
    found = drawn(page)
    assert found.shape == (PARTICLES, 2)
    np.testing.assert_allclose(found, expected(model, k, [0, 1]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_play_advances_and_stops_at_the_data(page):
    button, before = page.find_element(By.ID, "play"), drawn(page)
    press = "arguments[0].click(); return arguments[0].textContent"
    assert page.execute_script(press, button) == "Pause"
    WebDriverWait(page, 20, poll_frequency=0.05).until(lambda b: clock(b) > 0.02)
    assert page.execute_script(press, button) == "Play"
    assert clock(page) < 1 and not np.allclose(drawn(page), before)
    slide(page, 0.9)
    button.click()
    WebDriverWait(page, 20).until(lambda b: clock(b) == 1.0 and button.text == "Play")


def test_columns_change(page, model):
    slide(page, 1)
    Select(page.find_element(By.ID, "across")).select_by_visible_text("c")
    Select(page.find_element(By.ID, "up")).select_by_visible_text("length (m)")
    np.testing.assert_allclose(
        drawn(page), expected(model, TIMES - 1, [2, 0]), rtol=1e-5, atol=1e-5
    )
    titles = page.execute_script(
        "return [...document.querySelectorAll('.xtitle, .ytitle')].map(e => e.textContent)"
    )
    assert titles == ["c", "length (m)"]
    Select(page.find_element(By.ID, "up")).select_by_visible_text("log-density")
    heights = page.execute_script(
        "return [...document.getElementById('picture').data[2].customdata]"
    )
    np.testing.assert_allclose(drawn(page)[:, 1], heights)
    Select(page.find_element(By.ID, "across")).select_by_visible_text("b<i>")
    assert page.find_element(By.CSS_SELECTOR, ".xtitle").text == "b<i>"


def test_the_map_follows_the_axes_it_is_turned_to(page):
    map_of = "return document.getElementById('picture').data[0].z"
    upright = np.array(page.execute_script(map_of), dtype=float)
    Select(page.find_element(By.ID, "across")).select_by_visible_text("b<i>")
    Select(page.find_element(By.ID, "up")).select_by_visible_text("length (m)")
    np.testing.assert_array_equal(np.array(page.execute_script(map_of), dtype=float), upright.T)


def pixel(page: webdriver.Chrome, place: np.ndarray) -> tuple[float, float]:
    """Where a point of the picture is, from the picture's center."""
    script = """
    const { _fullLayout: { xaxis, yaxis } } = document.getElementById("picture");
    const box = document.getElementById("picture").getBoundingClientRect();
    return [xaxis._offset + xaxis.d2p(arguments[0]) - box.width / 2,
            yaxis._offset + yaxis.d2p(arguments[1]) - box.height / 2];
    """
    return tuple(page.execute_script(script, *map(float, place)))


def test_pointing_at_a_particle_tells_its_log_density(page):
    slide(page, 1)
    place = drawn(page)[7]
    heights = page.execute_script(
        "return [...document.getElementById('picture').data[2].customdata]"
    )
    picture = page.find_element(By.ID, "picture")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    ActionChains(page).move_to_element_with_offset(
        picture, *(round(p) for p in pixel(page, place))
    ).perform()
    label = WebDriverWait(page, 10).until(
        lambda b: b.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext")
    )
    told = float(re.match(r"log-density ([-−]?\d+\.\d{3})", label.text)[1].replace("−", "-"))
    # Several particles may have the log-density that is told, to three digits: one of them is
    # pointed at.
    meant = [at for at, height in zip(drawn(page), heights) if abs(height - told) < 6e-4]
    target = pixel(page, place)
    assert min(np.hypot(*np.subtract(pixel(page, at), target)) for at in meant) < 20


def test_a_frame_around_particles_follows_them(page):
    slide(page, 1)
    picture = page.find_element(By.ID, "picture")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    start = [round(p) for p in pixel(page, [9, 9])]
    end = [round(p) for p in pixel(page, [11, 11])]
    drag = ActionChains(page).move_to_element_with_offset(picture, *start).click_and_hold()
    drag.move_by_offset(end[0] - start[0], end[1] - start[1]).release().perform()
    said = page.find_element(By.ID, "said")
    WebDriverWait(page, 10).until(lambda b: said.text.startswith("Following"))
    followed = drawn(page, 4)
    inside = drawn(page)[((drawn(page) > 9) & (drawn(page) < 11)).all(1)]
    assert len(followed) > 20 and abs(len(followed) - len(inside)) <= 0.1 * len(inside) + 2
    assert said.text.startswith(
        f"Following {len(followed)} of {PARTICLES} particles, mean log-density"
    )
    slide(page, 0)
    moved = drawn(page, 4)
    assert moved.shape == followed.shape and not np.allclose(moved, followed)
    page.find_element(By.ID, "release").click()
    assert len(drawn(page, 4)) == 0 and "Following" not in said.text


@pytest.mark.slow
def test_everything_works_from_the_keyboard(page):
    picture, said = page.find_element(By.ID, "picture"), page.find_element(By.ID, "said")
    picture.send_keys(Keys.ARROW_RIGHT)
    assert clock(page) == pytest.approx(1 / (TIMES - 1), abs=0.006)
    picture.send_keys(Keys.ARROW_UP)
    assert said.text.startswith("Particle ") and "log-density" in said.text
    np.testing.assert_allclose(drawn(page, 5)[0, 0], drawn(page)[:, 0].min())
    picture.send_keys(Keys.ENTER)
    assert said.text.startswith("Following 1 of")
    picture.send_keys(Keys.ESCAPE)
    assert len(drawn(page, 4)) == len(drawn(page, 5)) == 0
    picture.send_keys(Keys.END)
    assert clock(page) == 1
    picture.send_keys(Keys.SPACE)
    WebDriverWait(page, 20).until(lambda b: 0 < clock(b) < 1)
    picture.send_keys(Keys.SPACE)
    slider = page.find_element(By.ID, "time")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert clock(page) == pytest.approx(1 / (TIMES - 1), abs=0.006)


def test_the_tabulator_reaches_every_control_and_focus_is_seen(page):
    wanted = page.execute_script(f"return document.querySelectorAll({CONTROLS!r}).length")
    reached = set()
    for _ in range(wanted):
        ActionChains(page).send_keys(Keys.TAB).perform()
        element = page.switch_to.active_element
        reached.add(element)
        style = page.execute_script(
            "const s = getComputedStyle(arguments[0]); return [s.outlineStyle, parseFloat(s.outlineWidth)]",
            element,
        )
        assert style[0] == "solid" and style[1] >= 2
    assert len(reached) == wanted


def test_every_control_and_picture_has_a_name(page):
    elements = page.find_elements(By.CSS_SELECTOR, f"{CONTROLS}, svg[role='img']")
    named = [page.execute_script(ACCESSIBLE_NAME, element).strip() for element in elements]
    unnamed = [e.get_attribute("outerHTML")[:200] for e, name in zip(elements, named) if not name]
    assert len(named) > 15 and not unnamed


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_paper(page, scheme):
    look(page, scheme=scheme)
    paper = "return document.getElementById('picture').layout.plot_bgcolor"
    WebDriverWait(page, 10).until(
        lambda b: (b.execute_script(paper) == "#ffffff") == (scheme == "light")
    )
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 150
    assert contrasts[0][0] >= 4.5, contrasts[:5]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_without_scrolling_sideways(page, scheme):
    look(page, width=360, height=740, scheme=scheme)
    assert page.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [
        360,
        360,
    ]
    whole = page.execute_script("return document.documentElement.scrollHeight")
    look(page, width=360, height=whole, scheme=scheme)
    shot = Image.open(io.BytesIO(base64.b64decode(page.get_screenshot_as_base64()))).convert("L")
    assert shot.width == 360
    values = np.asarray(shot)
    paper = np.median(values)
    assert (paper > 240) if scheme == "light" else (paper < 40)
    # Every screenful shows something.
    for part in np.array_split(values, whole // 740):
        assert 0.005 < (abs(part - paper) > 60).mean() < 0.9
