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

"""``/proc/PID/numa_maps``, which shows where memory really is.

Its format is in ``Documentation/filesystems/proc.rst`` of the kernel.
"""

from __future__ import annotations

from collections import Counter
import re

_NODE = re.compile(r'\bN(\d+)=(\d+)\b')
_SIZE = re.compile(r'\bkernelpagesize_kB=(\d+)\b')


def huge_pages(text: str) -> dict[tuple[int, int], int]:
    """Count the huge pages that a process has touched.

    :param text: the whole file
    :returns: pages by node and page size in KiB
    :raises ValueError: if a mapping of huge pages has no page size
    """
    counts: Counter[tuple[int, int]] = Counter()
    for line in text.splitlines():
        # A file may be mapped whose name has the word in it.
        words = [word for word in line.split() if not word.startswith('file=')]
        if 'huge' not in words:
            continue
        rest = ' '.join(words)
        size = _SIZE.search(rest)
        if size is None:
            raise ValueError(f'no page size in numa_maps: {line}')
        for node, pages in _NODE.findall(rest):
            counts[int(node), int(size[1])] += int(pages)
    return dict(counts)
