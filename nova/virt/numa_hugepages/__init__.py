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

"""The module in which Nova looks for ``numa_hugepages.NUMAHugepagesDriver``.

Nova imports drivers from its own package only. There is nothing else here, and
the folders above belong to Nova: they never get an ``__init__.py`` from us.
"""

from nova_numa_hugepages.libvirt.driver import NUMAHugepagesDriver

__all__ = ['NUMAHugepagesDriver']
