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
import os

import pytest

from tests.fixtures import nova_compat

# Here, and in what the tests start.
os.environ.setdefault(nova_compat.SWITCH, '1')
nova_compat.choose_threads(services=False)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The commands set up logging for a process of their own."""
    root = logging.getLogger()
    ours = logging.getLogger('nova_numa_hugepages')
    levels = root.level, ours.level
    handlers = list(root.handlers)
    yield
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
