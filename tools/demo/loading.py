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


"""Read scenario files."""

from __future__ import annotations

import pathlib

from nova_numa_hugepages.yamlfile import errors
from nova_numa_hugepages.yamlfile import reading
from tools.demo import problems
from tools.demo import demo_scenario


def load(path: pathlib.Path) -> demo_scenario.DemoScenario:
    """Read a scenario file.

    :raises: `errors.FileError`, with every problem that was found
    """
    document = reading.document(path)
    if found := problems.find(document):
        raise errors.FileError(str(path), found)
    return demo_scenario.build(str(path), document)
