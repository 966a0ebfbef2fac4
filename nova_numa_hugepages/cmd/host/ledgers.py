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

"""The ledger, as the ``host`` commands may use it."""

from __future__ import annotations

import datetime
import os
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state.ledger import Ledger


def forbidden(path: pathlib.Path, *, to_change: bool = False) -> bool:
    """Tell whether the ledger is there, and not for this user."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | (os.W_OK if to_change else 0))


def check(ledger: Ledger) -> None:
    """See that the times in it are such that can be told.

    :raises exception.LedgerDamaged: if one of them isn't
    """
    for hold in ledger.holds():
        try:
            when(hold.since)
        except (OSError, OverflowError, ValueError) as error:
            raise exception.LedgerDamaged(
                ledger.path,
                'has an invalid row in holds: holder '
                f'{hold.holder!r}, since {hold.since!r} ({error})',
            ) from error


def when(since: float) -> datetime.datetime:
    """Tell the time of the host's clock."""
    return datetime.datetime.fromtimestamp(since).astimezone()
