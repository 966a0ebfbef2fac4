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

"""The plugin that Tempest loads through ``tempest.test_plugins``."""

from __future__ import annotations

import os

from oslo_config import cfg
from tempest.test_discover import plugins

from nova_numa_hugepages.tempest import config


class NUMAHugepagesTempestPlugin(plugins.TempestPlugin):
    """The tests of this package and their options, for Tempest."""

    def load_tests(self) -> tuple[str, str]:
        """Get the folder of the tests.

        :returns: the folder of the tests, and the folder that names of
            modules begin in
        """
        here = os.path.dirname(os.path.abspath(__file__))
        top = os.path.dirname(os.path.dirname(here))
        return os.path.join(here, 'tests'), top

    def register_opts(self, conf: cfg.ConfigOpts) -> None:
        """Register the options of the plugin."""
        config.register_opts(conf)

    def get_opt_lists(self) -> list[tuple[str, list[cfg.Opt]]]:
        """List the options, for Tempest's sample file."""
        return config.list_opts()
