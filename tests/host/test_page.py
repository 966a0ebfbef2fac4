# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The page of the monitor, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
import io
import itertools
import pathlib

from matplotlib import image
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from nova_numa_hugepages.monitor import page
from tests.host import browser as browsers
from tests.host.rig import packages
from tests.unit.monitor import page_scene

HOSTILE = '<img src=x onerror=alert(1)>"\'<script>alert(2)</script>'

pytestmark = pytest.mark.skipif(
    packages.distribution() != 'debian',
    reason="the packages of other distributions' browsers differ",
)


@pytest.fixture(scope='module')
def browser() -> Iterator[webdriver.Chrome]:
    with browsers.running() as found:
        yield found


@pytest.fixture(scope='module')
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    scene = page_scene.Scene(tmp_path_factory.mktemp('host'), HOSTILE)
    with browsers.served(scene) as found:
        yield found


def style(browser: webdriver.Chrome, selector: str, name: str) -> str:
    """Get how something is shown."""
    element = browser.find_element(By.CSS_SELECTOR, selector)
    return str(element.value_of_css_property(name))


def test_it_is_shown_within_its_content_policy(
    browser: webdriver.Chrome, url: str
) -> None:
    browsers.show(browser, url)
    assert browser.get_log('browser') == []
    assert style(browser, '.card', 'border-top-width') == '1px'
    names = {
        entry['name']
        for entry in browser.execute_script(
            'return performance.getEntriesByType("resource").map(e => e)'
        )
    }
    assert {
        name for name in names if not name.endswith('favicon.ico')
    } == set()


def test_what_a_user_calls_an_instance_is_text(
    browser: webdriver.Chrome, url: str
) -> None:
    browsers.show(browser, url)
    assert browser.find_elements(By.TAG_NAME, 'img') == []
    assert browser.find_elements(By.TAG_NAME, 'script') == []
    summary = browser.find_element(By.CSS_SELECTOR, 'details summary')
    assert HOSTILE in summary.text


@pytest.mark.parametrize('dark', [False, True])
def test_on_a_phone(browser: webdriver.Chrome, url: str, dark: bool) -> None:
    browsers.show(browser, url, browsers.PHONE, dark=dark)
    for one in browser.find_elements(By.TAG_NAME, 'details'):
        browser.execute_script('arguments[0].open = true', one)
    width = browser.execute_script(
        'return document.documentElement.scrollWidth'
    )
    assert width <= browsers.PHONE


def brightness(colour: str) -> float:
    """Return how bright a colour is, from 0 to 1: ``rgba(R, G, B, A)``."""
    red, green, blue = (
        float(part) / 255 for part in colour.strip('rgba()').split(',')[:3]
    )
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (red, green, blue)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize('dark', [False, True])
def test_all_of_it_can_be_read_by_day_and_by_night(
    browser: webdriver.Chrome, url: str, dark: bool
) -> None:
    """Source: the contrast of text in WCAG 2.2, 1.4.3."""
    browsers.show(browser, url, dark=dark)
    ground = brightness(style(browser, 'body', 'background-color'))
    assert (ground < 0.05) is dark
    card = brightness(style(browser, '.card', 'background-color'))
    for selector in ('body', '.soft', '.bad', '.warn', 'a'):
        text = brightness(style(browser, selector, 'color'))
        for behind in (ground, card):
            light, deep = max(text, behind), min(text, behind)
            assert (light + 0.05) / (deep + 0.05) >= 4.5, selector


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize(
    'vision', ['none', 'deuteranopia', 'protanopia', 'tritanopia']
)
def test_the_colours_of_memory_differ_for_all_eyes(
    browser: webdriver.Chrome, url: str, dark: bool, vision: str
) -> None:
    browsers.show(browser, url, dark=dark)
    browser.execute_cdp_cmd(
        'Emulation.setEmulatedVisionDeficiency', {'type': vision}
    )
    found = {}
    for item in browser.find_elements(
        By.CSS_SELECTOR, 'section[aria-label="NUMA nodes"] .legend svg'
    ):
        picture = image.imread(io.BytesIO(item.screenshot_as_png))
        name = item.find_element(By.TAG_NAME, 'rect').get_attribute('class')
        found[name] = picture[len(picture) // 2, len(picture[0]) // 2][:3]
    browser.execute_cdp_cmd(
        'Emulation.setEmulatedVisionDeficiency', {'type': 'none'}
    )
    assert len(found) == 5
    for (one, first), (other, second) in itertools.combinations(
        found.items(), 2
    ):
        distance = float(((first - second) ** 2).sum() ** 0.5)
        assert distance > 0.12, (one, other, vision)


def test_one_instance_in_detail(browser: webdriver.Chrome, url: str) -> None:
    browsers.show(browser, url)
    alarm = browser.find_element(By.CSS_SELECTOR, '.alarm a')
    uuid = alarm.text
    alarm.click()
    detail = browser.find_element(By.ID, uuid)
    detail.find_element(By.TAG_NAME, 'summary').click()
    assert '2MiB, node 1 300 260' in detail.text
    assert '2MiB, node 2 0 40' in detail.text
    assert 'Its kernel says' in detail.text


def test_as_a_file(browser: webdriver.Chrome, tmp_path: pathlib.Path) -> None:
    scene = page_scene.Scene(tmp_path)
    path = tmp_path / 'page.html'
    path.write_text(page.render(scene.view()), encoding='utf-8')
    browsers.show(browser, path.as_uri())
    assert browser.get_log('browser') == []
    assert style(browser, '.card', 'border-top-width') == '1px'
    assert 'refresh' not in browser.page_source
