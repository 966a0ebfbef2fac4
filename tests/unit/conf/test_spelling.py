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

"""Tests of names in configuration files that look like ours."""

from oslo_config import cfg
import pytest

from nova_numa_hugepages import conf as package_conf


@pytest.fixture
def load(tmp_path):
    """Load a configuration of one file, or of a folder of files."""

    def load_files(text=None, **files):
        conf = cfg.ConfigOpts()
        package_conf.register_opts(conf)
        words = []
        if text is not None:
            (tmp_path / 'nova.conf').write_text(text)
            words += ['--config-file', str(tmp_path / 'nova.conf')]
        for name, content in files.items():
            folder = tmp_path / 'nova.conf.d'
            folder.mkdir(exist_ok=True)
            (folder / f'{name}.conf').write_text(content)
            words += ['--config-dir', str(folder)]
        conf(words, project='nova', default_config_files=[])
        return conf

    return load_files


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (
            '[numa_hugepages]\npage_pool = static\n',
            '2: [numa_hugepages] has no option page_pool. Did you mean '
            'page_pools?',
        ),
        (
            '[DEFAULT]\n\n[numa_hugepage]\npage_pools = static\n',
            '3: there is no group [numa_hugepage]. Did you mean '
            '[numa_hugepages]?',
        ),
        (
            '[numa-hugepages-privileged]\n',
            '1: there is no group [numa-hugepages-privileged]. Did you mean '
            '[numa_hugepages_privileged]?',
        ),
        (
            '[numa_hugepages]\nwarm-margin: 5\n',
            '2: [numa_hugepages] has no option warm-margin. Did you mean '
            'warm_margin_mib?',
        ),
        (
            '[numa_hugepages]\nxyzzy=1\n',
            '2: [numa_hugepages] has no option xyzzy.',
        ),
    ],
)
def test_a_slip_is_named_with_file_and_line(
    load, tmp_path, caplog, text, expected
):
    conf = load(text)

    found = package_conf.unknown_names(conf)
    package_conf.warn_of_unknown_names(conf)

    assert found == [f'{tmp_path}/nova.conf:{expected}']
    assert f'Unknown name in the configuration: {found[0]}' in caplog.text


def test_all_files_are_read(load, tmp_path):
    conf = load(
        '[numa_hugepages]\nfirst = 1\n',
        b='[numa_hugepages]\nthird = 1\n',
        a='[numa_hugepages]\nsecond = 1\n',
    )

    assert [
        name.rpartition('/')[2] for name in package_conf.unknown_names(conf)
    ] == [
        'nova.conf:2: [numa_hugepages] has no option first.',
        'a.conf:2: [numa_hugepages] has no option second.',
        'b.conf:2: [numa_hugepages] has no option third.',
    ]


def test_what_is_right_is_not_named(load):
    options = ''.join(
        f'# no_option = 1\n{opt.name} = \n'
        for _, opts in package_conf.list_opts()
        for opt in opts
    )
    conf = load(
        '[DEFAULT]\npage_pool = 1\n[libvirt]\nnum_pcie_ports = 1\n'
        f'[numa_hugepages]\n{options}\n'
        'demand_mix = a:1,\n    b:2\n'
        '[numa_hugepages_privileged]\nhelper_command = sudo x=y\n'
        '[oslo_messaging_rabbit]\npage_pool = 1\n'
    )

    assert package_conf.unknown_names(conf) == []


def test_no_files(load):
    assert package_conf.unknown_names(load()) == []


def test_all_bad_values_are_found(load):
    conf = load(
        '[numa_hugepages]\npage_pools = both\nwarm_margin_mib = -1\n'
        'demand_mix = a:x\n'
    )

    assert sorted(problem.name for problem in package_conf.problems(conf)) == [
        'demand_mix',
        'page_pools',
        'warm_margin_mib',
    ]
