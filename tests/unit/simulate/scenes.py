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


"""Short ways to write down what is simulated."""

from nova_numa_hugepages.simulate import scenario


def node(
    cores,
    memory_mib=65536,
    pages=None,
    *,
    threads=1,
    shared_cores=0,
    reserved=None,
):
    return scenario.HostNode(
        cores=cores,
        threads=threads,
        shared_cores=shared_cores,
        memory_mib=memory_mib,
        pages=pages or {},
        reserved=reserved or {},
        socket=None,
    )


def host(*nodes, count=1, **fields):
    return scenario.HostType('host', count, nodes, **fields)


def flavor(name, vcpus, memory_mib=1024, share=1.0, **specs):
    """Make a flavor; ``hw:`` goes before the names of the extra specs."""
    return scenario.Flavor(
        name,
        vcpus,
        memory_mib,
        {f'hw:{key}': str(value) for key, value in specs.items()},
        share,
    )


def pinned(name, vcpus, memory_mib=1024, share=1.0, **specs):
    return flavor(
        name, vcpus, memory_mib, share, cpu_policy='dedicated', **specs
    )


def play(hosts, flavors, trace=None):
    return scenario.Scenario(
        'fleet.yaml',
        tuple(hosts),
        tuple(flavors),
        scenario.Arrivals(100),
        trace,
    )
