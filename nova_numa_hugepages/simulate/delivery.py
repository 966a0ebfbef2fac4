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


"""The terminal and the files to which the results of a simulation go.

They are checked before the runs, which may take minutes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from rich import console as rich

from nova_numa_hugepages.simulate import output
from nova_numa_hugepages.simulate import plots
from nova_numa_hugepages.simulate import tables

if TYPE_CHECKING:
    from nova_numa_hugepages.simulate import results


@dataclasses.dataclass(frozen=True)
class Delivery:
    """The files that results are written to.

    :ivar json: a file
    :ivar plots: a folder, which need not exist
    """

    json: pathlib.Path | None = None
    plots: pathlib.Path | None = None

    def check(self) -> None:
        """Check that the files can be written.

        :raises: `output.OutputError`, `extras.MissingLibrary`
        """
        if self.plots is not None:
            plots.check_library()
            output.check_folder(self.plots)
            if (
                self.json is not None
                and not self.plots.exists()
                and self.json.parent.resolve() == self.plots.resolve()
            ):
                # The folder will be made for both.
                return
        if self.json is not None:
            output.check_writable(self.json)

    def deliver(
        self,
        found: results.Results,
        *,
        notes: rich.Console,
        planned: int | None = None,
    ) -> None:
        """Print the results on standard output, and write the files.

        No file is written if there is no run. Files are written although
        standard output is closed, and results are printed although a file
        cannot be written.

        :param notes: where to print which files are written
        :param planned: the number of runs that were planned
        :raises: `output.OutputError`
        """
        written: list[pathlib.Path] = []
        try:
            if found.runs:
                self._write(found, written)
        finally:
            try:
                tables.print_report(
                    found,
                    rich.Console(highlight=False, markup=False),
                    planned=planned,
                )
            finally:
                for path in written:
                    print_written(path, notes)

    def _write(
        self, found: results.Results, written: list[pathlib.Path]
    ) -> None:
        if self.plots is not None:
            output.make_folder(self.plots)
        if self.json is not None:
            output.write(self.json, output.dump(found).encode())
            written.append(self.json)
        if self.plots is not None:
            written += plots.write_plots(found, self.plots)


def print_written(path: pathlib.Path, notes: rich.Console) -> None:
    """Print that a file is written."""
    # A name longer than the line must not be broken.
    notes.print(f'Written: {path}', soft_wrap=True)
