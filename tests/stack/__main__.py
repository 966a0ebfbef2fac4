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

"""A whole cloud on this machine: all services, and virtual compute hosts."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.stack import install
from tests.stack import locations
from tests.stack import processes
from tests.stack import status

_UP = 'The cloud is up.'


def main() -> int:
    """Run it.

    :returns: the exit code
    """
    parser = argparse.ArgumentParser(
        prog='python -m tests.stack', description=__doc__
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, function, text in (
        ('install', install.prepare, 'install what is missing'),
        ('up', up, 'bring it up in the background'),
        ('hold', hold, 'bring it up, and stay until SIGTERM or Ctrl-C'),
        ('status', status.show, 'show what is up, and where'),
        ('down', down, 'end it'),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
    try:
        return parser.parse_args().function() or 0
    except processes.Failed as problem:
        print(problem, file=sys.stderr)
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
    return 1


def hold() -> None:
    """Bring the stack up, and stay."""
    signal.signal(signal.SIGTERM, processes.interrupt)
    install.prepare()
    from tests.stack import stack

    with stack.Stack() as running, contextlib.suppress(KeyboardInterrupt):
        print(_UP, flush=True)
        while True:
            running.processes.check()
            time.sleep(1)


def up() -> int:
    """Start a process that holds the stack, and print its output.

    :returns: the exit code
    """
    install.prepare()
    log = locations.folder() / 'stack.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('wb') as output:
        holder = subprocess.Popen(
            [sys.executable, '-m', 'tests.stack', 'hold'],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with log.open() as lines:
            while True:
                ended = holder.poll() is not None
                for line in lines:
                    print(line, end='', flush=True)
                    if line.strip() == _UP:
                        return status.show()
                if ended:
                    return 1
                time.sleep(0.2)
    except KeyboardInterrupt:
        print('\nStopping everything…', flush=True)
        # The group has the commands that it waits for.
        os.killpg(holder.pid, signal.SIGTERM)
        holder.wait()
        raise


def down() -> None:
    """End the process that holds the stack."""
    holder = status.holder()
    if holder is None:
        print('No stack is up.')
        return
    signal.pidfd_send_signal(holder, signal.SIGTERM)
    status.wait_for_end(holder)
    print('The stack is down.')


if __name__ == '__main__':
    sys.exit(main())
