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

"""What the commands say of themselves: completion and manual pages."""

import pathlib
import runpy

from nova_numa_hugepages.cmd import main

DOC = pathlib.Path(__file__).parents[3] / 'doc/source'


def test_the_completion_knows_the_commands_and_their_options(capfd):
    assert main.run(['complete']) == 0

    text = capfd.readouterr().out
    assert "cmds_host='alarms elastic reconcile release show'" in text
    assert '--state-path --ledger --root' in text
    assert text.endswith(
        'complete -F _nova_numa_hugepages nova-numa-hugepages\n'
    )


def test_each_page_of_a_command_is_a_manual_page():
    pages = runpy.run_path(str(DOC / 'conf.py'))['man_pages']

    assert {f'{page}.rst' for page, *_ in pages} == {
        str(path.relative_to(DOC)) for path in (DOC / 'cli').glob('*.rst')
    }
