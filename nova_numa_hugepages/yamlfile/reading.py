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

"""Read files, and tell why they can't be read."""

from __future__ import annotations

import pathlib

from nova_numa_hugepages.yamlfile import errors
from nova_numa_hugepages.yamlfile import lines


def text(path: pathlib.Path) -> str:
    """Read a file of text in UTF-8, with or without a byte order mark.

    :returns: the text with its line ends as they are
    :raises: `errors.UnreadableError` if there is no such file, or it can't
        be read; `errors.FileError` if it isn't UTF-8
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.UnreadableError(
            str(path), error.strerror or str(error)
        ) from error
    except ValueError as error:
        # A name that no file can have, for example with a NUL in it.
        raise errors.UnreadableError(str(path), str(error)) from error
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise errors.FileError(
            str(path), [(line, 'found bytes that are no UTF-8, expected text')]
        ) from error


def document(path: pathlib.Path) -> lines.Document:
    """Read a file of one YAML document.

    :raises: `errors.FileError`
    """
    content = text(path)
    try:
        return lines.load(content)
    except lines.YAMLError as error:
        raise errors.FileError(
            str(path), [(error.line, str(error))]
        ) from error
