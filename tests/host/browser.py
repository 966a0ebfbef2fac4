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

"""A browser without a window, and the pictures of the page in the guide.

``python -m tests.host.browser FOLDER`` takes these.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
import contextlib
import pathlib
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.chrome import service as chrome_service
from selenium.webdriver.common.by import By

from nova_numa_hugepages.monitor import web
from tests.host.rig import packages
from tests.unit.monitor import page_scene

PROGRAMS = {'chromium': ('chromium',), 'chromedriver': ('chromium-driver',)}

WIDE = 1100
NARROW = 640
PHONE = 360


@contextlib.contextmanager
def running() -> Iterator[webdriver.Chrome]:
    """Run it."""
    packages.install(PROGRAMS)
    options = webdriver.ChromeOptions()
    options.binary_location = str(packages.program('chromium'))
    for argument in ('headless=new', 'no-sandbox', 'hide-scrollbars'):
        options.add_argument(f'--{argument}')
    # They would be asked of the network.
    for argument in ('disable-background-networking', 'no-first-run'):
        options.add_argument(f'--{argument}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(
        options,
        chrome_service.Service(str(packages.program('chromedriver'))),
    )
    try:
        yield browser
    finally:
        browser.quit()


@contextlib.contextmanager
def served(scene: page_scene.Scene) -> Iterator[str]:
    """Serve the page of a host; return its address."""
    server = web.serve(scene.monitor, '127.0.0.1', 0)
    try:
        yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()


def show(
    browser: webdriver.Chrome,
    url: str,
    width: int = WIDE,
    *,
    dark: bool = False,
) -> None:
    """Open the page as a device of some width shows it."""
    browser.execute_cdp_cmd(
        'Emulation.setEmulatedMedia',
        {
            'features': [
                {
                    'name': 'prefers-color-scheme',
                    'value': 'dark' if dark else 'light',
                }
            ]
        },
    )
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {
            'width': width,
            'height': 800,
            'deviceScaleFactor': 1,
            'mobile': width <= PHONE,
        },
    )
    browser.get(url)


def shoot(browser: webdriver.Chrome, path: pathlib.Path) -> None:
    """Write a picture of all of the page."""
    found = browser.execute_cdp_cmd(
        'Page.captureScreenshot', {'captureBeyondViewport': True}
    )
    path.write_bytes(base64.b64decode(found['data']))


def main(folder: pathlib.Path) -> None:
    """Take the pictures."""
    with (
        tempfile.TemporaryDirectory() as root,
        running() as browser,
        served(page_scene.Scene(pathlib.Path(root))) as url,
    ):
        show(browser, url)
        shoot(browser, folder / 'monitor-page.png')
        show(browser, url, NARROW, dark=True)
        for one in browser.find_elements(By.TAG_NAME, 'details')[2:3]:
            browser.execute_script('arguments[0].open = true', one)
            path = folder / 'monitor-instance.png'
            path.write_bytes(one.screenshot_as_png)


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
