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


"""Tests of putting our fit in the place of Nova's."""

from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.core.builders import pinned_cell
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import placed
from tests.unit.nova_builders import topology
from tests.unit.nova_fit.fitting import fit
from tests.unit.nova_fit.fitting import four_cells

NAME = 'numa_fit_instance_to_host'
SIGNATURE = (
    '(host_topology, instance_topology, provider_mapping, limits=None, '
    'pci_requests=None, pci_stats=None)'
)


SIGNATURE_OF_OTHER_ORDER = (
    '(host_topology, instance_topology, provider_mapping, limits=None, '
    'pci_stats=None, pci_requests=None)'
)


SIGNATURE_OF_OTHER_DEFAULT = (
    '(host_topology, instance_topology, provider_mapping=None, limits=None, '
    'pci_requests=None, pci_stats=None)'
)


def other_order(
    host_topology,
    instance_topology,
    provider_mapping,
    limits=None,
    pci_stats=None,
    pci_requests=None,
):
    """Take the last two the other way round."""


def other_default(
    host_topology,
    instance_topology,
    provider_mapping=None,
    limits=None,
    pci_requests=None,
    pci_stats=None,
):
    """Let the mapping be left out."""


class TestInstall:
    """Our fit in place of Nova's."""

    def test_it_replaces_the_fit_of_nova_until_it_is_taken_out(self):
        stock = getattr(nova_hardware, NAME)

        numa_fit.install()
        between = getattr(nova_hardware, NAME)
        numa_fit.uninstall()

        assert between is fit
        assert stock is not fit
        assert getattr(nova_hardware, NAME) is stock

    def test_it_may_be_repeated(self):
        stock = getattr(nova_hardware, NAME)

        numa_fit.install()
        numa_fit.install()

        assert numa_fit.stock_fit() is stock
        numa_fit.uninstall()
        numa_fit.uninstall()
        assert getattr(nova_hardware, NAME) is stock

    def test_the_stock_fit_can_be_had_either_way(self):
        stock = getattr(nova_hardware, NAME)

        assert numa_fit.stock_fit() is stock
        numa_fit.install()
        assert numa_fit.stock_fit() is stock

    def test_the_installed_nova_has_the_signature(self):
        numa_fit.check_signature()
        numa_fit.check_signature(numa_fit.stock_fit())

    def test_annotations_make_no_difference(self):
        def annotated(
            host_topology: int,
            instance_topology: str,
            provider_mapping: list[str],
            limits: float | None = None,
            pci_requests: list[int] | None = None,
            pci_stats: bytes | None = None,
        ) -> int:
            return 0

        numa_fit.check_signature(annotated)

    @pytest.mark.parametrize(
        ('other', 'found'),
        [
            (lambda host, guest: None, '(host, guest)'),
            (other_order, SIGNATURE_OF_OTHER_ORDER),
            (other_default, SIGNATURE_OF_OTHER_DEFAULT),
        ],
    )
    def test_another_signature_is_refused_and_both_are_named(
        self, monkeypatch, other, found
    ):
        monkeypatch.setattr(nova_hardware, NAME, other)

        with pytest.raises(exception.SignatureMismatch) as caught:
            numa_fit.install()

        assert f'written for the signature {SIGNATURE},' in str(caught.value)
        assert f'the installed Nova has {found}.' in str(caught.value)
        assert getattr(nova_hardware, NAME) is other
        assert numa_fit.stock_fit() is other

    def test_nothing_is_changed_when_it_is_refused(self, monkeypatch):
        asked = []
        monkeypatch.setattr(nova_hardware, NAME, lambda host: None)

        with pytest.raises(exception.SignatureMismatch):
            numa_fit.install(host_stats=asked.append)
        fit(topology(*four_cells()), guest(pinned_cell(1)), None)

        assert asked == []

    def test_the_three_callers_of_nova_reach_our_fit(self):
        # They all go through the attribute of the module.
        numa_fit.install()

        found = nova_hardware.numa_fit_instance_to_host(
            topology(*four_cells()), guest(pinned_cell(1)), None
        )

        assert placed(found) == [(0, None, {0: 0})]
