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

"""The results of a simulation as files.

A file is there as a whole or not at all: it is written under another name in
the same folder, and then takes its name in one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import json
import os
import pathlib
import secrets
import tempfile
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary

VERSION = 1

# Of shares, which are from 0 to 1. More would only make the file larger.
_DECIMALS = 6


class OutputError(exception.NUMAHugepagesError):
    """A file of results cannot be written.

    :param path: the file, or the folder that is in the way
    :param reason: what is wrong
    :param remedy: what to do about it
    """

    def __init__(self, path: pathlib.Path, reason: str, remedy: str) -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy
        super().__init__(f'cannot write {path}: {reason}. {remedy}')


def dump(found: results.Results) -> str:
    """Write results as JSON.

    ``runs`` has them all; the samples of a run are columns of equal length,
    whose names are the fields of `results.Sample`. ``summary`` has the figures
    by phase and policy, in the units that their names say.

    :returns: one object with the key ``version``, which is raised when a key
        changes its meaning or goes away; the same for the same results
    """
    document = {
        'version': VERSION,
        'scenario': found.scenario,
        'complete': found.complete,
        'summary': {
            str(phase.phase): _phase(phase)
            for phase in summary.summarise(found).phases
        },
        'runs': [_run(run) for run in found.runs],
    }
    return _lines(document) + '\n'


def _phase(phase: summary.PhaseSummary) -> dict[str, Any]:
    return {
        'policies': {
            str(policy.policy): {
                'seeds': list(policy.seeds),
                'figures': _figures(policy.figures),
                'first_refused': dict(policy.first_refused),
                'by_flavor': {
                    refusals.flavor: {
                        'arrivals': refusals.arrivals,
                        'refused': refusals.refused,
                        'refused_percent': round(refusals.percent, _DECIMALS),
                    }
                    for refusals in policy.by_flavor
                },
            }
            for policy in phase.policies
        },
        'ratios': _figures(phase.ratios),
    }


def _figures(
    figures: Mapping[summary.Metric, summary.Figure],
) -> dict[str, dict[str, float | None]]:
    return {
        str(metric): {
            'median': _rounded(figure.median),
            'low': _rounded(figure.low),
            'high': _rounded(figure.high),
        }
        for metric, figure in figures.items()
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DECIMALS)


def _run(run: results.Run) -> dict[str, Any]:
    return {
        'policy': str(run.policy),
        'phase': str(run.phase),
        'seed': run.seed,
        'arrivals': run.arrivals,
        'placed': run.placed,
        'bound': run.bound,
        'first_refused': run.first_refused,
        'counted': dict(sorted(run.counted.items())),
        'refused': dict(sorted(run.refused.items())),
        'seconds': round(run.seconds, _DECIMALS),
        'samples': {
            field: [
                round(value, _DECIMALS)
                for value in (getattr(sample, field) for sample in run.samples)
            ]
            for field in results.Sample._fields
        },
    }


def _lines(value: Any, indent: str = '') -> str:
    """Write JSON for people: a list of numbers is one line."""
    deeper = indent + '  '
    if isinstance(value, dict) and value:
        opening, closing = '{}'
        parts = [
            f'{json.dumps(key)}: {_lines(part, deeper)}'
            for key, part in value.items()
        ]
    elif isinstance(value, list) and any(
        isinstance(part, dict) for part in value
    ):
        opening, closing = '[]'
        parts = [_lines(part, deeper) for part in value]
    else:
        return json.dumps(value)
    inside = f',\n{deeper}'.join(parts)
    return f'{opening}\n{deeper}{inside}\n{indent}{closing}'


def write_all(contents: Mapping[pathlib.Path, bytes]) -> None:
    """Write files; on a failure none of them is touched.

    :param contents: what goes into each file; one that exists is replaced
    :raises OutputError: if one can't be written. Only if it is found out when
        all are complete, and the first of them have their names already, do
        these keep them
    """
    with contextlib.ExitStack() as stack:
        complete = []
        for path, content in contents.items():
            with _explaining(path):
                # A link stays one.
                target = pathlib.Path(os.path.realpath(path))
                if target.exists() and not target.is_file():
                    # A pipe or a terminal; a folder is refused.
                    path.write_bytes(content)
                    continue
                temporary = target.with_name(
                    f'.nova-numa-hugepages-{secrets.token_hex(8)}.tmp'
                )
                stack.callback(temporary.unlink, missing_ok=True)
                _write(temporary, content, like=target)
                complete.append((path, temporary, target))
        for path, temporary, target in complete:
            with _explaining(path):
                os.replace(temporary, target)


def _write(path: pathlib.Path, content: bytes, like: pathlib.Path) -> None:
    """Write a new file.

    :param like: a file whose mode it gets, if that file exists
    """
    with open(path, 'xb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if like.exists():
            os.fchmod(file.fileno(), like.stat().st_mode & 0o777)


def make_folder(path: pathlib.Path) -> None:
    """Make a folder, with those above it; it may exist.

    :raises OutputError: if it can't be made
    """
    with _explaining(path):
        path.mkdir(parents=True, exist_ok=True)


def check_folder(path: pathlib.Path) -> None:
    """Find out whether files can be written to a folder, or it can be made.

    :param path: the folder; it is not made
    :raises OutputError: if it can't
    """
    with _explaining(path):
        above = target = pathlib.Path(os.path.realpath(path))
        while not os.path.lexists(above):
            above = above.parent
        if not above.is_dir():
            kind = errno.EEXIST if above == target else errno.ENOTDIR
            raise OSError(kind, os.strerror(kind))
        with tempfile.TemporaryFile(dir=above):
            pass


def check_writable(path: pathlib.Path) -> None:
    """Find out whether a file can be written, without touching it.

    :raises OutputError: if it can't
    """
    with _explaining(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target = pathlib.Path(os.path.realpath(path))
        if not target.exists() or target.is_file():
            with tempfile.TemporaryFile(dir=target.parent):
                pass


@contextlib.contextmanager
def _explaining(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            path, error.strerror or str(error), _remedy(path, error)
        ) from error


def _remedy(path: pathlib.Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f'Make the folder {path.parent} first, or name another one.'
        case errno.EISDIR:
            return 'It is a folder: name a file.'
        case errno.EEXIST:
            return 'It is a file: name a folder.'
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return 'Make room there, or name a file in another folder.'
        case _:
            return 'Name a file in a folder that you may write to.'
