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

"""Libraries that only simulations need, which may not be installed."""

from __future__ import annotations

from nova_numa_hugepages import exception

# Quoted, as some shells take the brackets for a pattern.
_INSTALL = "pip install 'nova-numa-hugepages[simulate]'"


class MissingLibrary(exception.NUMAHugepagesError):
    """A library of the extra ``simulate`` is not installed.

    :param library: its name
    :param purpose: what it is needed for
    """

    def __init__(self, library: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs {library}, which is not installed. Install it: '
            f'{_INSTALL}'
        )
