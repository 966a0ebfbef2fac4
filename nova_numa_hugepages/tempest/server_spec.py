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

"""The size of a test server, and the flavor for it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """A server whose guest cells are all of one size.

    :ivar cell_memory_mib: a multiple of the page size
    :ivar specs: extra specs besides those that follow from the other fields
    """

    cells: int
    cell_vcpus: int
    cell_memory_mib: int
    page_size_kib: int
    dedicated_cpus: bool
    specs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that a cell is made of whole pages.

        :raises ValueError: with the names of the options
        """
        if self.cell_memory_mib * 1024 % self.page_size_kib:
            raise ValueError(
                f'{self.cell_memory_mib} MiB are not a number of pages of '
                f'{self.page_size_kib} KiB; see cell_memory_mib, '
                'fill_cell_memory_mib and page_size_kib in the group '
                'numa_hugepages of tempest.conf'
            )

    @classmethod
    def of(cls, options: Any, *, cells: int = 1, **changes: Any) -> ServerSpec:
        """Get the server that the options describe.

        :param options: the group ``numa_hugepages`` of ``tempest.conf``
        :param changes: fields that differ from the options
        :raises ValueError: if the cells aren't made of whole pages
        """
        fields = {
            'cell_vcpus': options.cell_vcpus,
            'cell_memory_mib': options.cell_memory_mib,
            'page_size_kib': options.page_size_kib,
            'dedicated_cpus': options.dedicated_cpus,
        }
        return cls(cells=cells, **{**fields, **changes})

    @property
    def vcpus(self) -> int:
        """vCPUs of the server."""
        return self.cells * self.cell_vcpus

    @property
    def memory_mib(self) -> int:
        """Memory of the server."""
        return self.cells * self.cell_memory_mib

    @property
    def cell_pages(self) -> int:
        """Pages of each cell."""
        return self.cell_memory_mib * 1024 // self.page_size_kib

    @property
    def resources(self) -> dict[str, int]:
        """The resources of the server in Placement, without its disk."""
        cpus = 'PCPU' if self.dedicated_cpus else 'VCPU'
        return {cpus: self.vcpus, 'MEMORY_MB': self.memory_mib}

    @property
    def extra_specs(self) -> dict[str, str]:
        """Extra specs of the flavor."""
        specs = {
            'hw:numa_nodes': str(self.cells),
            'hw:mem_page_size': str(self.page_size_kib),
        }
        if self.dedicated_cpus:
            specs['hw:cpu_policy'] = 'dedicated'
        return {**specs, **self.specs}
