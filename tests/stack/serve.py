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

"""Serves the API of an OpenStack service: ``serve.py MODULE PORT``.

Runs in the environment of the services, as a script: nothing of the project
may be found on the way.
"""

from __future__ import annotations

import importlib
import sys

import sqlalchemy.orm
import waitress


def main() -> None:
    """Run it."""
    name, port = sys.argv[1:]
    # Neutron's module reads the arguments.
    del sys.argv[1:]
    application = importlib.import_module(name).application
    # Else Neutron's first request for ports may come before its models know
    # of each other.
    sqlalchemy.orm.configure_mappers()
    waitress.serve(
        application,
        listen=f'127.0.0.1:{port}',
        threads=8,
        # Images are larger than what it takes for a request by default.
        max_request_body_size=1 << 40,
    )


if __name__ == '__main__':
    main()
