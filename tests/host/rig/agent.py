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

"""Runs commands inside a virtual host, for the tests outside.

It reads requests from a virtio serial port and answers on it, one JSON object
a line. Each command runs in a thread of its own, with its output in files, so
that any number of them can run at once.

Only the standard library, and as little of that as will do: inside a virtual
host each import takes long.

Requests have an ``id`` and either ``run`` (arguments, with ``input``,
``timeout`` and ``env``), ``peek`` (the id of a command that is running: what
it has written so far) or ``signal`` (the same, and ``number``). Bytes travel
as latin-1 text.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

JOBS = '/run/jobs'
# What timeout(1) says.
TIMED_OUT = 124


class Agent:
    """Serves one port, for ever."""

    def __init__(self, port):
        self._port = os.open(port, os.O_RDWR)
        self._lock = threading.Lock()
        self._running = {}
        os.makedirs(JOBS, exist_ok=True)

    def serve(self):
        """Answer requests."""
        self._send({'id': 0})
        rest = b''
        while True:
            chunk = os.read(self._port, 65536)
            if not chunk:  # no client is connected
                time.sleep(0.1)
                continue
            *lines, rest = (rest + chunk).split(b'\n')
            for line in lines:
                threading.Thread(
                    target=self._answer, args=(json.loads(line),), daemon=True
                ).start()

    def _answer(self, request):
        reply = {'id': request['id']}
        try:
            if 'run' in request:
                reply.update(self._run(request))
            elif 'peek' in request:
                reply.update(self._output(request['peek']))
            else:
                process = self._running.get(request['signal'])
                if process is not None:
                    os.killpg(process.pid, request['number'])
        except Exception as problem:
            reply['error'] = f'{type(problem).__name__}: {problem}'
        self._send(reply)

    def _run(self, request):
        number = request['id']
        with (
            open(f'{JOBS}/{number}.in', 'w+b') as stdin,
            open(f'{JOBS}/{number}.out', 'wb') as out,
            open(f'{JOBS}/{number}.err', 'wb') as err,
        ):
            stdin.write(request['input'].encode('latin-1'))
            stdin.seek(0)
            process = subprocess.Popen(
                request['run'],
                stdin=stdin,
                stdout=out,
                stderr=err,
                env={**os.environ, **request['env']},
                start_new_session=True,
            )
        self._running[number] = process
        try:
            status = process.wait(request['timeout'])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = TIMED_OUT
        del self._running[number]
        return {**self._output(number), 'status': status}

    def _output(self, number):
        found = {}
        for name in ('out', 'err'):
            found[name] = ''
            path = f'{JOBS}/{number}.{name}'
            if os.path.exists(path):  # it may be just about to start
                with open(path, 'rb') as file:
                    found[name] = file.read().decode('latin-1')
        process = self._running.get(number)
        found['pid'] = process.pid if process else None
        return found

    def _send(self, reply):
        data = json.dumps(reply).encode() + b'\n'
        with self._lock:
            while data:
                data = data[os.write(self._port, data) :]


if __name__ == '__main__':
    Agent(sys.argv[1]).serve()
