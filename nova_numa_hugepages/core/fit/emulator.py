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

"""The CPU of an isolated emulator (``hw:emulator_threads_policy=isolate``)."""

from nova_numa_hugepages.core import model


def emulator_cpus(request: model.Request, index: int) -> int:
    """Count the dedicated CPUs that a guest cell needs for the emulator.

    They come on top of those of its vCPUs. An isolated emulator has one, with
    guest cell 0; where that cell has no dedicated vCPUs by policy, the
    emulator has none either. Stock Nova has the same rule.

    :param index: the guest cell
    """
    return int(
        request.emulator_isolated
        and index == 0
        and request.cells[0].cpu_policy is not model.CPUPolicy.SHARED
    )
