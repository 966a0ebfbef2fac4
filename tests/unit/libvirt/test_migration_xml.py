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

"""The XML of a domain that is live migrated."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.libvirt import migration_xml

XML = """
<domain>
  <cpu>
    <numa>
      <cell id="0" cpus="0-1" memory="1048576"/>
      <cell id="1" cpus="2-3" memory="524288"/>
    </numa>
  </cpu>
</domain>
"""


def rows_of(xml):
    return [
        [int(s.get('value')) for s in cell.findall('distances/sibling')]
        for cell in ElementTree.fromstring(xml).findall('./cpu/numa/cell')
    ]


def test_distances_are_replaced_and_removed():
    near = migration_xml.replace_distances(XML, [[10, 12], [12, 10]])
    far = migration_xml.replace_distances(near, [[10, 21], [21, 10]])

    assert rows_of(near) == [[10, 12], [12, 10]]
    assert rows_of(far) == [[10, 21], [21, 10]]
    assert '<distances' not in migration_xml.replace_distances(far, None)


def test_what_is_no_xml_is_named():
    with pytest.raises(exception.InvalidDomain, match='it is no XML: '):
        migration_xml.replace_distances('<domain>', None)


class Domain:
    """A domain of libvirt that records its migrations."""

    def __init__(self):
        self.migrated = []

    def migrateToURI3(self, uri, params, flags):
        self.migrated.append((uri, params, flags))

    def name(self):
        return 'guest'


class Guest:
    def __init__(self, dom):
        self._domain = dom

    def migrate(self, xml):
        self._domain.migrateToURI3(
            'qemu://two',
            params={'destination_xml': xml, 'persistent_xml': xml},
            flags=1,
        )


def test_a_running_guest_keeps_its_distances_until_its_next_start():
    # Given: a guest with the distances of its host
    here = migration_xml.replace_distances(XML, [[10, 12], [12, 10]])
    guest = Guest(Domain())

    # when it is migrated to where its cells are farther apart
    migration_xml.with_destination_distances(
        guest, [[10, 21], [21, 10]]
    ).migrate(here)

    # then it runs with those it has, or libvirt would refuse, and starts next
    # with those of its host
    ((uri, params, flags),) = guest._domain.migrated
    assert (uri, flags) == ('qemu://two', 1)
    assert params['destination_xml'] == here
    assert rows_of(params['persistent_xml']) == [[10, 21], [21, 10]]
    assert guest._domain.name() == 'guest'


def test_distances_that_the_destination_does_not_report_are_removed():
    here = migration_xml.replace_distances(XML, [[10, 12], [12, 10]])
    guest = Guest(Domain())

    migration_xml.with_destination_distances(guest, None).migrate(here)

    ((_, params, _),) = guest._domain.migrated
    assert '<distances' not in params['persistent_xml']


def test_distances_of_another_number_of_cells_are_removed():
    xml = migration_xml.replace_distances(XML, [[10]])

    assert '<distances' not in xml
