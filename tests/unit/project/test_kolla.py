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

"""The playbook for kolla-ansible adds ``pid_mode`` in the right places, once.

Its expressions are applied as ``ansible.builtin.replace`` does.
"""

import pathlib
import re

import pytest
import yaml

PLAYBOOK = (
    pathlib.Path(__file__).parents[3]
    / 'etc/nova-numa-hugepages/kolla/pid-mode.yml'
)

# Parts of two files of the role, as kolla-ansible has them.
DEFAULTS = """\
nova_cell_services:
  nova-conductor:
    container_name: "nova_conductor"
    enabled: true
  nova-compute:
    container_name: "nova_compute"
    enabled: true
  nova-compute-ironic:
    container_name: "nova_compute_ironic"
"""
HANDLERS = """\
- name: Restart nova-libvirt container
  kolla_container:
    image: "{{ service.image }}"

- name: Restart nova-compute container
  become: true
  kolla_container:
    name: "{{ service.container_name }}"
    image: "{{ service.image }}"
    privileged: true

- name: Restart nova-compute-ironic container
  kolla_container:
    image: "{{ service.image }}"
"""


@pytest.fixture
def play():
    (found,) = yaml.safe_load(PLAYBOOK.read_text())
    return found


def run(play, text):
    """Run the playbook on one of the files.

    :returns: the file as it is then, None if its place isn't found
    """
    change = play['tasks'][1]['ansible.builtin.replace']
    for place in play['vars']['places']:
        if re.search(place['after'], text, re.MULTILINE):
            pattern = change['regexp'].replace(
                '{{ item.after }}', place['after']
            )
            return re.sub(pattern, change['replace'], text, flags=re.MULTILINE)
    return None


def test_it_adds_pid_mode_for_nova_compute_alone(play):
    defaults = yaml.safe_load(run(play, DEFAULTS))['nova_cell_services']
    assert {
        name for name, service in defaults.items() if 'pid_mode' in service
    } == {'nova-compute'}
    assert defaults['nova-compute']['pid_mode'] == 'host'

    handlers = yaml.safe_load(run(play, HANDLERS))
    assert [
        handler['kolla_container'].get('pid_mode') for handler in handlers
    ] == [None, 'host', None]


@pytest.mark.parametrize('text', [DEFAULTS, HANDLERS])
def test_it_may_be_run_again(play, text):
    once = run(play, text)

    assert run(play, once) == once


def test_a_role_that_has_changed_too_much_is_told(play):
    text = HANDLERS.replace('nova-compute container', 'compute')

    assert run(play, text) is None
