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


import pathlib
import re

from oslo_config import cfg
from oslo_config import generator
import pytest

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception

ROOT = pathlib.Path(__file__).resolve().parents[2]
ETC = ROOT / 'etc' / 'nova-numa-hugepages'
SAMPLE = ETC / 'nova-numa-hugepages.conf.sample'
GENERATOR_CONF = ETC / 'nova-numa-hugepages-config-generator.conf'


def load(tmp_path, *lines):
    """Read a configuration file with some lines in our group."""
    path = tmp_path / 'nova.conf'
    path.write_text('\n'.join(['[numa_hugepages]', *lines]))
    conf = cfg.ConfigOpts()
    package_conf.register_opts(conf)
    conf(['--config-file', str(path)])
    return conf


def test_the_defaults(tmp_path):
    conf = load(tmp_path)

    package_conf.validate(conf)

    assert dict(conf.numa_hugepages) == {
        'account_small_pages': True,
        'stock_claim_search_limit': 5000,
        'rejection_reasons': 5,
        'weight_multiplier': 10000.0,
        'demand_half_life': 604800,
        'demand_kinds': 20,
        'demand_mix': {},
        'demand_flavors_interval': 600,
        'demand_file': 'nova-numa-hugepages-demand.json',
    }


def test_registering_twice_changes_nothing(tmp_path):
    conf = load(tmp_path, 'rejection_reasons = 7')

    package_conf.register_opts(conf)

    assert conf.numa_hugepages.rejection_reasons == 7


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('account_small_pages', 'false'),
        ('stock_claim_search_limit', '1'),
        ('stock_claim_search_limit', '1000000'),
        ('rejection_reasons', '1'),
        ('rejection_reasons', '50'),
        ('weight_multiplier', '-10000.0'),
        ('weight_multiplier', '0.0'),
        ('demand_half_life', '60'),
        ('demand_half_life', '315360000'),
        ('demand_kinds', '1'),
        ('demand_kinds', '200'),
        ('demand_flavors_interval', '0'),
        ('demand_flavors_interval', '86400'),
        ('demand_file', ''),
    ],
)
def test_values_at_the_ends_of_a_range_are_accepted(tmp_path, name, value):
    conf = load(tmp_path, f'{name} = {value}')

    package_conf.validate(conf)

    assert str(conf.numa_hugepages[name]).lower() == value


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('account_small_pages', 'perhaps'),
        ('stock_claim_search_limit', '0'),
        ('stock_claim_search_limit', '1000001'),
        ('stock_claim_search_limit', 'many'),
        ('rejection_reasons', '0'),
        ('rejection_reasons', '51'),
        ('rejection_reasons', '2.5'),
        ('weight_multiplier', 'much'),
        ('weight_multiplier', 'nan'),
        ('weight_multiplier', '-inf'),
        ('demand_half_life', '59'),
        ('demand_half_life', '315360001'),
        ('demand_kinds', '0'),
        ('demand_kinds', '201'),
        ('demand_flavors_interval', '-1'),
        ('demand_flavors_interval', '86401'),
        ('demand_mix', 'small'),
        ('demand_mix', 'small:'),
        ('demand_mix', 'small:1,large:many'),
        ('demand_mix', 'small:0'),
        ('demand_mix', 'small:-1'),
        ('demand_mix', 'small:nan'),
        ('demand_mix', 'small:inf'),
    ],
)
def test_a_bad_value_is_refused_by_name(tmp_path, name, value):
    conf = load(tmp_path, f'{name} = {value}')

    with pytest.raises(exception.InvalidOption) as caught:
        package_conf.validate(conf)

    assert (caught.value.group, caught.value.name) == ('numa_hugepages', name)
    assert f'[numa_hugepages] {name}: ' in str(caught.value)
    # What oslo.config refuses itself is told with the file.
    if isinstance(caught.value.__cause__, cfg.Error):
        assert str(tmp_path / 'nova.conf') in str(caught.value)


def test_a_mix_of_flavors_is_read(tmp_path):
    conf = load(tmp_path, 'demand_mix = db.large:3, vnf small:0.5')

    package_conf.validate(conf)

    assert package_conf.demand_shares(conf.numa_hugepages.demand_mix) == {
        'db.large': 3.0,
        'vnf small': 0.5,
    }


def test_the_list_for_the_generator_is_a_copy():
    first = package_conf.list_opts()
    first[0][1].clear()

    ((group, opts),) = package_conf.list_opts()

    assert group.name == 'numa_hugepages'
    assert [opt.name for opt in opts] == [
        'account_small_pages',
        'stock_claim_search_limit',
        'rejection_reasons',
        'weight_multiplier',
        'demand_half_life',
        'demand_kinds',
        'demand_mix',
        'demand_flavors_interval',
        'demand_file',
    ]


@pytest.mark.parametrize(
    'opt',
    [*package_conf.filter_opts, *package_conf.weigher_opts],
    ids=lambda opt: opt.name,
)
def test_the_help_of_every_option_is_complete(opt):
    assert opt.help.startswith('\n')
    for heading in ('Possible values:', 'For example, ', 'Related options:'):
        assert re.search(f'^{heading}', opt.help, re.MULTILINE), heading


def test_the_sample_is_what_the_generator_writes(tmp_path, monkeypatch):
    # given: the generator's configuration names its files from the root
    monkeypatch.chdir(ROOT)
    generated = tmp_path / 'sample'

    # when
    generator.main(
        [
            '--config-file', str(GENERATOR_CONF),
            '--output-file', str(generated),
        ]
    )  # fmt: skip

    # then
    assert generated.read_text() == SAMPLE.read_text(), 'run "make genconfig"'
