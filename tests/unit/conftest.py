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

"""What a test changes in this process for others is put back."""

from collections.abc import Iterator
import logging

import pytest


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """The host commands tell people less than the service's log."""
    logger = logging.getLogger('nova_numa_hugepages')
    before = logger.level
    yield
    logger.setLevel(before)
