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

"""Whose domain it is, and which CPUs its vCPUs are pinned to."""

from __future__ import annotations

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import domain_plan

PINS = (
    '<cputune><vcpupin vcpu="0" cpuset="2-3"/>'
    '<vcpupin vcpu="1" cpuset="4-7,^5"/></cputune>'
)
INSTANCE = """
<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
  <nova:name>{name}</nova:name>
  <nova:flavor name="db.large" id="7">
    <nova:extraSpecs>
      <nova:extraSpec name="hw:mem_page_size">2MB</nova:extraSpec>
    </nova:extraSpecs>
  </nova:flavor>
  <nova:owner>
    <nova:user uuid="u1">demo</nova:user>
    <nova:project uuid="p1">demo project</nova:project>
  </nova:owner>
</nova:instance>
"""


def domain(metadata: str = '', rest: str = '') -> str:
    return f'<domain><metadata>{metadata}</metadata>{rest}</domain>'


def test_an_instance() -> None:
    plan = domain_plan.read(domain(INSTANCE.format(name='db 1'), PINS))
    assert plan == domain_plan.DomainPlan(
        'db 1',
        'db.large',
        'p1',
        {'hw:mem_page_size': '2MB'},
        {0: frozenset({2, 3}), 1: frozenset({4, 6, 7})},
    )


def test_a_domain_that_is_not_of_nova() -> None:
    assert domain_plan.read('<domain/>') == domain_plan.DomainPlan()
    assert domain_plan.read(domain(rest=PINS)).vcpus[0] == {2, 3}


def test_what_users_write_is_made_harmless() -> None:
    name = '&lt;b&gt;' + 'x\n\u202e' + 'y' * 10_000_000
    plan = domain_plan.read(domain(INSTANCE.format(name=name)))
    assert plan.name.startswith('<b>x\ufffd\ufffdyyy')
    assert len(plan.name) == 255


@pytest.mark.parametrize(
    ('xml', 'problem'),
    [
        ('<domain', 'no XML'),
        (domain(rest=PINS.replace('"0"', '"a"')), "pins the vCPU 'a'"),
        (domain(rest=PINS.replace('2-3', '3-2')), 'backwards'),
        (domain(rest=PINS.replace('2-3', '')), 'has no numbers'),
        (domain(rest=PINS.replace(' cpuset="2-3"', '')), 'has no numbers'),
    ],
)
def test_odd_xml(xml: str, problem: str) -> None:
    with pytest.raises(exception.InvalidDomain, match=problem):
        domain_plan.read(xml)
