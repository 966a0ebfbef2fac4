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

"""Which migrations keep what is held for them."""

from __future__ import annotations

from unittest import mock

from nova import exception as nova_exception
from nova import objects
import pytest

from nova_numa_hugepages.libvirt import queries

UUID = '00000000-0000-4000-8000-000000000001'


class Record:
    """A migration as Nova's database has it.

    :param task_state: of its instance; an error if that is gone
    """

    instance_uuid = UUID

    def __init__(
        self,
        migration_type: str,
        status: str,
        task_state: str | Exception | None,
    ) -> None:
        self.migration_type = migration_type
        self.status = status
        self._task_state = task_state

    @property
    def instance(self) -> mock.Mock:
        if isinstance(self._task_state, Exception):
            raise self._task_state
        return mock.Mock(task_state=self._task_state)


GONE = nova_exception.InstanceNotFound(instance_id=UUID)


@pytest.mark.parametrize(
    ('migration_type', 'status', 'task_state', 'counts'),
    [
        ('live-migration', 'running', 'migrating', True),
        ('live-migration', 'preparing', 'migrating', True),
        # The service of the source was killed, and Nova put it to rest.
        ('live-migration', 'running', None, False),
        ('live-migration', 'running', GONE, False),
        ('live-migration', 'error', 'migrating', False),
        ('migration', 'finished', None, True),
        ('migration', 'error', None, True),
        ('resize', 'error', None, True),
        ('evacuation', 'accepted', 'rebuilding', True),
        ('evacuation', 'error', None, False),
    ],
)
def test_migrations(
    monkeypatch: pytest.MonkeyPatch,
    migration_type: str,
    status: str,
    task_state: str | Exception | None,
    counts: bool,
) -> None:
    record = Record(migration_type, status, task_state)
    monkeypatch.setattr(
        objects.MigrationList,
        'get_in_progress_and_error',
        lambda *_: [record],
    )

    found = queries.migrating_instances('host', 'node')

    assert found == (frozenset({UUID}) if counts else frozenset())


def test_nothing_is_known_of_a_migration_if_nova_does_not_answer_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record('live-migration', 'running', OSError('no route to host'))
    monkeypatch.setattr(
        objects.MigrationList,
        'get_in_progress_and_error',
        lambda *_: [record],
    )

    assert queries.migrating_instances('host', 'node') is None
    assert 'Could not list in-progress migrations' in caplog.text


def test_nothing_is_known_if_nova_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError('no route to host')

    monkeypatch.setattr(
        objects.MigrationList, 'get_in_progress_and_error', fail
    )

    assert queries.migrating_instances('host', 'node') is None
    assert 'Could not list in-progress migrations' in caplog.text
