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

"""The configuration of the services, written for each stack."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

from tests.stack import ini
from tests.stack import locations

# What the packages of the services bring along.
_SHIPPED = pathlib.Path(sys.prefix) / 'etc'
_SAMPLE = (
    locations.PROJECT
    / 'etc'
    / 'nova-numa-hugepages'
    / 'nova-numa-hugepages.conf.sample'
)
_HELPER = str(pathlib.Path(sys.executable).with_name('privsep-helper'))

FILTERS = (
    'ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,'
    'ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,'
    'NUMAHugepagesFilter'
)
WEIGHERS = (
    'nova.scheduler.weights.all_weighers,'
    'nova_numa_hugepages.scheduler.weights.NUMAHugepagesWeigher'
)
OUR_DRIVER = 'numa_hugepages.NUMAHugepagesDriver'
STOCK_DRIVER = 'libvirt.LibvirtDriver'


def write() -> None:
    """Write the configuration of all services but the computes."""
    for service in ('keystone', 'placement', 'glance', 'neutron', 'nova'):
        for folder in (
            locations.configuration(service),
            locations.state(service),
        ):
            folder.mkdir(parents=True)
    _keystone()
    _placement()
    _glance()
    _neutron()
    _nova()


def nova_files(name: str) -> list[pathlib.Path]:
    """The configuration files of a Nova service.

    The second is the sample of this project, as it is.

    :param name: the name of the first, without its ending
    """
    folder = locations.configuration('nova')
    return [folder / f'{name}.conf', folder / _SAMPLE.stem]


def write_compute(
    name: str, host: str, driver: str, *layers: ini.Options
) -> None:
    """Write the configuration of a compute service.

    :param name: the name of its host
    :param host: where the other services are, as that host sees it
    :param driver: its ``compute_driver``
    :param layers: what else there is in it
    """
    helper = {'helper_command': _HELPER}
    ini.write(
        nova_files(name)[0],
        _nova_common(host),
        {
            'DEFAULT': {
                'host': name,
                'compute_driver': driver,
                # It takes its time, under emulation.
                'debug': bool(os.environ.get('STACK_DEBUG')),
                # The guests have nothing that would answer.
                'shutdown_timeout': 0,
                'reserved_host_memory_mb': 64,
                # Nothing that a test stops has to come to its end.
                'manager_shutdown_timeout': 5,
                'graceful_shutdown_timeout': 10,
            },
            'vnc': {'enabled': False},
            # What a service that is killed has held stays held for as long.
            'numa_hugepages': {'start_time_limit': 240},
            # All services run as root.
            'nova_sys_admin': helper,
            'privsep_osbrick': helper,
            'numa_hugepages_privileged': helper,
        },
        *layers,
    )


def _authentication(
    user: str, host: str = locations.LOOPBACK
) -> dict[str, str]:
    return {
        'auth_type': 'password',
        'auth_url': locations.url('keystone', host),
        'username': user,
        'password': locations.PASSWORD,
        'project_name': 'service',
        'project_domain_id': 'default',
        'user_domain_id': 'default',
        'region_name': locations.REGION,
    }


def _token(user: str) -> dict[str, dict[str, object]]:
    """How a service asks who sent a request."""
    return {
        'keystone_authtoken': {
            **_authentication(user),
            'www_authenticate_uri': locations.url('keystone'),
        }
    }


def _keystone() -> None:
    state = locations.state('keystone')
    ini.write(
        locations.configuration('keystone') / 'keystone.conf',
        {
            'database': {'connection': locations.database('keystone')},
            'fernet_tokens': {'key_repository': state / 'fernet'},
            'credential': {'key_repository': state / 'credential'},
            'cache': {'enabled': True, 'backend': 'oslo_cache.dict'},
        },
    )


def _placement() -> None:
    ini.write(
        locations.configuration('placement') / 'placement.conf',
        _token('placement'),
        {
            'api': {'auth_strategy': 'keystone'},
            'placement_database': {
                'connection': locations.database('placement')
            },
        },
    )


def _glance() -> None:
    state = locations.state('glance')
    for name in ('images', 'staging', 'tasks'):
        (state / name).mkdir()
    ini.write(
        locations.configuration('glance') / 'glance-api.conf',
        _token('glance'),
        {
            'DEFAULT': {
                'enabled_backends': 'local:file',
                'bind_host': locations.LOOPBACK,
                'node_staging_uri': f'file://{state / "staging"}',
                'worker_self_reference_url': locations.url('glance'),
            },
            'glance_store': {'default_backend': 'local'},
            'local': {'filesystem_store_datadir': state / 'images'},
            'os_glance_staging_store': {
                'filesystem_store_datadir': state / 'staging'
            },
            'os_glance_tasks_store': {
                'filesystem_store_datadir': state / 'tasks'
            },
            'database': {'connection': locations.database('glance')},
            'paste_deploy': {
                'flavor': 'keystone',
                'config_file': _SHIPPED / 'glance' / 'glance-api-paste.ini',
            },
        },
    )


def _neutron() -> None:
    state = locations.state('neutron')
    ini.write(
        locations.configuration('neutron') / 'neutron.conf',
        _token('neutron'),
        {
            'DEFAULT': {
                'state_path': state,
                'core_plugin': 'ml2',
                # Without it Neutron's ports are incomplete.
                'service_plugins': 'router',
                'auth_strategy': 'keystone',
                'api_paste_config': _SHIPPED / 'neutron' / 'api-paste.ini',
                'transport_url': locations.broker(),
                'notify_nova_on_port_status_changes': False,
                'notify_nova_on_port_data_changes': False,
                'dhcp_agent_notification': False,
            },
            'database': {'connection': locations.database('neutron')},
            # There is no agent: guests have no network.
            'ml2': {
                'mechanism_drivers': '',
                'type_drivers': 'local',
                'tenant_network_types': 'local',
            },
            'oslo_concurrency': {'lock_path': state / 'lock'},
        },
    )


def _nova_common(host: str) -> ini.Options:
    """Return what all services of Nova have in common.

    :param host: where the other services are
    """
    return {
        'DEFAULT': {
            'concurrency_backend': 'threading',
            'transport_url': locations.broker(host),
            'my_ip': locations.LOOPBACK,
            'state_path': locations.state('nova'),
            'rootwrap_config': _SHIPPED / 'nova' / 'rootwrap.conf',
            # Of AMQP alone there are several lines a second.
            'default_log_levels': (
                'amqp=WARN,oslo.messaging=INFO,oslo_messaging=INFO,'
                'sqlalchemy=WARN,stevedore=INFO,urllib3=INFO,'
                'keystonemiddleware=INFO,keystoneauth=INFO,'
                'oslo_concurrency=INFO,oslo_policy=INFO,oslo.cache=INFO,'
                'oslo_service=INFO,dogpile=INFO,routes=INFO'
            ),
        },
        'service_user': {
            **_authentication('nova', host),
            'send_service_user_token': True,
        },
        **{
            name: {
                **_authentication('nova', host),
                'endpoint_override': locations.url(name, host),
            }
            for name in ('placement', 'neutron')
        },
        'glance': {
            'region_name': locations.REGION,
            'endpoint_override': locations.url('glance', host),
        },
        'oslo_concurrency': {'lock_path': locations.state('nova') / 'lock'},
        'oslo_messaging_notifications': {'driver': 'noop'},
    }


def _nova() -> None:
    folder = locations.configuration('nova')
    for path in (_SAMPLE, _SHIPPED / 'nova' / 'api-paste.ini'):
        shutil.copyfile(path, folder / path.name.removesuffix('.sample'))
    ini.write(
        nova_files('nova')[0],
        _nova_common(locations.LOOPBACK),
        _token('nova'),
        {
            'api_database': {'connection': locations.database('nova_api')},
            'database': {'connection': locations.database('nova')},
            'scheduler': {
                'workers': 1,
                'discover_hosts_in_cells_interval': 5,
            },
            'conductor': {'workers': 1},
            'quota': {'instances': -1, 'cores': -1, 'ram': -1},
            'DEFAULT': {
                # The scheduler logs why it took a host.
                'debug': True,
                # Nothing could copy a disk to the other one.
                'allow_resize_to_same_host': True,
            },
            'filter_scheduler': {
                'available_filters': [
                    'nova.scheduler.filters.all_filters',
                    'nova_numa_hugepages.scheduler.filters.'
                    'NUMAHugepagesFilter',
                ],
                'enabled_filters': FILTERS,
                'weight_classes': WEIGHERS,
            },
        },
    )
