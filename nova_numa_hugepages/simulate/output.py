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

"""The results of a simulation as files, written in full or not at all."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary

# Of the JSON; raised when a key changes its meaning or goes away.
VERSION = 2

# More would only make the file larger.
_DECIMALS = 6


class OutputError(exception.NUMAHugepagesError):
    """A file of results cannot be written.

    :param path: the file or folder
    :param reason: the error of the system
    :param remedy: a sentence
    """

    def __init__(self, path: pathlib.Path, reason: str, remedy: str) -> None:
        super().__init__(f'cannot write {path}: {reason}. {remedy}')


def dump(found: results.Results) -> str:
    """Return results as JSON, which is the same for the same results.

    The samples of a run are columns of equal length, whose names are the
    fields of `results.Sample`.
    """
    document = {
        'version': VERSION,
        'scenario': found.scenario,
        'complete': found.complete,
        'summary': {
            phase.phase: {
                'policies': {
                    policy.policy: _policy(policy) for policy in phase.policies
                },
                'ratios': _figures(phase.ratios),
            }
            for phase in summary.summarise(found)
        },
        'runs': [_run(run) for run in found.runs],
    }
    return json.dumps(_rounded(document), indent=1) + '\n'


def _policy(policy: summary.PolicySummary) -> dict[str, Any]:
    return {
        'seeds': policy.seeds,
        'figures': _figures(policy.figures),
        'first_refused': dict(policy.first_refused),
        'by_flavor': {
            refusals.flavor: {
                'arrivals': refusals.arrivals,
                'refused': refusals.refused,
                'refused_percent': refusals.percent,
            }
            for refusals in policy.by_flavor
        },
    }


def _figures(
    figures: Mapping[summary.Metric, summary.Figure],
) -> dict[str, Any]:
    return {
        metric: dataclasses.asdict(figure)
        for metric, figure in figures.items()
    }


def _run(run: results.Run) -> dict[str, Any]:
    return {
        **dataclasses.asdict(run),
        'counted': dict(sorted(run.counted.items())),
        'refused': dict(sorted(run.refused.items())),
        'week': run.week and run.week._asdict(),
        'ready': run.ready and run.ready._asdict(),
        'locality': run.locality and run.locality._asdict(),
        'samples': {
            field: [getattr(sample, field) for sample in run.samples]
            for field in results.Sample._fields
        },
    }


def _rounded(value: Any) -> Any:
    """Round all numbers of a document."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, _DECIMALS) if isinstance(value, float) else value


def write(
    contents: Mapping[pathlib.Path, bytes],
    report: Callable[[pathlib.Path], object],
) -> None:
    """Write files; none of them is touched before all are complete.

    :param contents: of each file; one that exists is replaced
    :param report: called with each file once it is there
    :raises OutputError: if one cannot be written
    """
    complete = []
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            with _explaining(path):
                # A link stays one.
                target = pathlib.Path(os.path.realpath(path))
                if target.exists() and not target.is_file():
                    # A pipe or a terminal; a folder is refused.
                    path.write_bytes(content)
                    report(path)
                    continue
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(
                        dir=target.parent, prefix='.nova-numa-hugepages-'
                    )
                )
                new = pathlib.Path(folder, target.name)
                new.write_bytes(content)
                if target.exists():
                    shutil.copymode(target, new)
                complete.append((path, new, target))
        for path, new, target in complete:
            with _explaining(path):
                new.replace(target)
            report(path)


def make_folder(path: pathlib.Path) -> None:
    """Make a folder, with those above it; it may exist.

    :raises OutputError: if it cannot be made
    """
    with _explaining(path):
        path.mkdir(parents=True, exist_ok=True)


def check_folder(path: pathlib.Path) -> None:
    """Check that a folder can be made or exists, and takes files.

    :param path: the folder; it is not made
    :raises OutputError: if it cannot be used
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
    """Check that a file can be written, without touching it.

    :raises OutputError: if it cannot
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
