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

"""The options, their help and the sample file."""

import pathlib
import re

from oslo_config import cfg
from oslo_config import generator
import pytest

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.conf import compute
from nova_numa_hugepages.conf import elastic
from nova_numa_hugepages.conf import scheduler
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy

ROOT = pathlib.Path(__file__).resolve().parents[3]
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
        'alarm_after': 300,
        'alarm_fragmented_percent': 10,
        'alarm_free_percent': 5,
        'alarm_unused_percent': 75,
        'alarm_used_percent': 90,
        'elastic_grow_percent': 10,
        'elastic_guest_agent': False,
        'elastic_interval': 5,
        'elastic_lend_ratio': 1.0,
        'elastic_pause': 30,
        'elastic_return_limit': 600,
        'elastic_shrink_delay': 300,
        'elastic_shrink_percent': 25,
        'slot_flavors': [],
        'stock_claim_search_limit': 5000,
        'rejection_reasons': 5,
        'weight_multiplier': 10000.0,
        'demand_half_life': 604800,
        'demand_kinds': 20,
        'demand_mix': {},
        'demand_flavors_interval': 600,
        'demand_file': 'nova-numa-hugepages-demand.json',
        'page_pools': 'dynamic',
        'node_free_memory_mib': 1024,
        'node_ceiling_percent': 90,
        'page_cache_percent': 50,
        'warm_margin_mib': 0,
        'ready_limit_percent': 10,
        'ready_risk_percent': 1.0,
        'compact_memory': True,
        'demote_pages': False,
        'hand_over_pages': True,
        'grow_time_limit': 30,
        'start_time_limit': 600,
        'powered_off_pages': 'keep',
        'prealloc_threads': 8,
    }


def test_the_defaults_of_the_driver_are_those_of_its_policy(tmp_path):
    conf = load(tmp_path)

    assert policy.read(conf.numa_hugepages, {}) == policy.PoolPolicy()


def test_every_option_of_the_pools_reaches_the_policy(tmp_path):
    # Given other values than the defaults for all of them
    conf = load(
        tmp_path,
        'page_pools = static',
        'node_free_memory_mib = 11',
        'node_ceiling_percent = 12',
        'page_cache_percent = 15',
        'warm_margin_mib = 13',
        'compact_memory = false',
        'demote_pages = true',
        'hand_over_pages = false',
        'grow_time_limit = 14',
        'start_time_limit = 61',
        'powered_off_pages = release',
    )
    reserved = {model.PoolKey(1, 2048): 64}

    assert policy.read(conf.numa_hugepages, reserved) == policy.PoolPolicy(
        dynamic=False,
        node_free_mib=11,
        ceiling_percent=12,
        cache_percent=15,
        warm_mib=13,
        compact=False,
        demote=True,
        hand_over=False,
        time_limit_s=14,
        start_limit_s=61,
        keep_powered_off=False,
        reserved=reserved,
    )


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
        ('page_pools', 'static'),
        ('node_free_memory_mib', '0'),
        ('node_free_memory_mib', '16777216'),
        ('node_ceiling_percent', '0'),
        ('node_ceiling_percent', '100'),
        ('warm_margin_mib', '16777216'),
        ('compact_memory', 'false'),
        ('demote_pages', 'true'),
        ('hand_over_pages', 'false'),
        ('grow_time_limit', '1'),
        ('grow_time_limit', '600'),
        ('start_time_limit', '60'),
        ('start_time_limit', '86400'),
        ('powered_off_pages', 'release'),
        ('prealloc_threads', '0'),
        ('prealloc_threads', '64'),
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
        ('page_pools', 'elastic'),
        ('node_free_memory_mib', '-1'),
        ('node_free_memory_mib', '16777217'),
        ('node_ceiling_percent', '-1'),
        ('node_ceiling_percent', '101'),
        ('warm_margin_mib', '-1'),
        ('warm_margin_mib', '16777217'),
        ('compact_memory', 'perhaps'),
        ('demote_pages', 'perhaps'),
        ('hand_over_pages', 'perhaps'),
        ('grow_time_limit', '0'),
        ('grow_time_limit', '601'),
        ('start_time_limit', '59'),
        ('start_time_limit', '86401'),
        ('powered_off_pages', 'lose'),
        ('prealloc_threads', '-1'),
        ('prealloc_threads', '65'),
    ],
)
def test_a_bad_value_is_refused_by_name(tmp_path, name, value):
    conf = load(tmp_path, f'{name} = {value}')

    with pytest.raises(exception.InvalidOption) as caught:
        package_conf.validate(conf)

    assert (caught.value.group, caught.value.name) == ('numa_hugepages', name)
    assert f'[numa_hugepages] {name}: ' in str(caught.value)
    # What oslo.config itself refuses names the file.
    if isinstance(caught.value.__cause__, cfg.Error):
        assert str(tmp_path / 'nova.conf') in str(caught.value)


def test_what_oslo_config_says_is_the_cause(tmp_path):
    conf = load(tmp_path, 'page_pools = both')

    with pytest.raises(exception.InvalidOption) as caught:
        package_conf.validate(conf)

    assert isinstance(caught.value.__cause__, cfg.Error)


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
        'page_pools',
        'node_free_memory_mib',
        'node_ceiling_percent',
        'page_cache_percent',
        'warm_margin_mib',
        'ready_risk_percent',
        'ready_limit_percent',
        'compact_memory',
        'demote_pages',
        'hand_over_pages',
        'grow_time_limit',
        'start_time_limit',
        'powered_off_pages',
        'prealloc_threads',
        'elastic_lend_ratio',
        'elastic_interval',
        'elastic_grow_percent',
        'elastic_shrink_percent',
        'elastic_shrink_delay',
        'elastic_pause',
        'elastic_guest_agent',
        'elastic_return_limit',
        'alarm_used_percent',
        'alarm_unused_percent',
        'alarm_free_percent',
        'alarm_fragmented_percent',
        'alarm_after',
        'slot_flavors',
    ]


@pytest.mark.parametrize(
    'opt',
    [*scheduler.ALL, *compute.ALL, *elastic.ALL],
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
