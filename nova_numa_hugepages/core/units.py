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

"""Page sizes and amounts of memory, as integers and as text.

Nova gives page sizes in KiB, the memory of cells in MiB, and counts of pages.
Nova's own arithmetic on them divides into floats; everything here stays with
integers.
"""

KIB_PER_MIB = 1024

_SUFFIXES = ((1024 * 1024, 'GiB'), (1024, 'MiB'))


def format_kib(size_kib: int) -> str:
    """Write an amount of memory in the largest unit that divides it.

    :param size_kib: an amount in KiB, for example a page size
    :returns: for example ``4 KiB``, ``2 MiB`` or ``1 GiB``
    """
    for factor, suffix in _SUFFIXES:
        if size_kib and size_kib % factor == 0:
            return f'{size_kib // factor} {suffix}'
    return f'{size_kib} KiB'


def pages_for(memory_mib: int, page_size_kib: int) -> int | None:
    """Count the pages that hold an amount of memory exactly.

    :param page_size_kib: the page size in KiB, above zero
    :returns: the number of pages, or None if the memory is not a whole
        number of pages
    """
    pages, rest = divmod(memory_mib * KIB_PER_MIB, page_size_kib)
    return None if rest else pages
