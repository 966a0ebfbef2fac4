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

"""The ``nova-numa-hugepages-status`` command.

``nova-numa-hugepages-status upgrade check`` checks whether the scheduler can
be started with its configuration. It connects to nothing and changes nothing.
"""

from collections.abc import Sequence
import difflib
import functools
import math
import pathlib
import sys
import warnings

from oslo_config import cfg

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception

# Nova and its libraries warn of each other while they are loaded, which is of
# no use to an operator.
with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from nova import exception as nova_exception
    from nova.conf import paths as paths_conf
    from nova.conf import scheduler as scheduler_conf
    from nova.scheduler import filters as nova_filters
    from nova.scheduler import weights as nova_weights
    from oslo_upgradecheck import upgradecheck

    from nova_numa_hugepages.nova_fit import numa_fit
    from nova_numa_hugepages.scheduler import demand_store

FILTER = 'NUMAHugepagesFilter'
FILTER_PATH = f'nova_numa_hugepages.scheduler.filters.{FILTER}'
STOCK_FILTER = 'NUMATopologyFilter'
WEIGHER = 'NUMAHugepagesWeigher'
WEIGHER_PATH = f'nova_numa_hugepages.scheduler.weights.{WEIGHER}'

# How alike two names are that are taken for one another, from 0 to 1.
_ALIKE = 0.75

# oslo.upgradecheck returns it as well if a check could not be made.
CANNOT_RUN = 255

# Errors of Nova if a class of its options cannot be loaded.
_NOT_LOADED = (
    ImportError,
    TypeError,
    ValueError,
    nova_exception.ClassNotFound,
)


_SUCCESS = upgradecheck.Result(upgradecheck.Code.SUCCESS)
_warning = functools.partial(upgradecheck.Result, upgradecheck.Code.WARNING)
_failure = functools.partial(upgradecheck.Result, upgradecheck.Code.FAILURE)


class Checks(upgradecheck.UpgradeCommands):
    """The checks, in the order in which they are reported.

    :param conf: the configuration to check, with the options of this package
        and of Nova's scheduler and paths registered
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def _check_files(self) -> upgradecheck.Result:
        """Check that it is the operator's configuration that is checked."""
        if self._conf.config_file or self._conf.config_dir:
            return _SUCCESS
        return _warning(
            'No configuration file was found, so the defaults were checked. '
            "Name the scheduler's with --config-file or --config-dir."
        )

    def _check_options(self) -> upgradecheck.Result:
        problems = [str(error) for error in package_conf.problems(self._conf)]
        if problems:
            return _failure(' '.join(f'{problem}.' for problem in problems))
        if self._weighers_of_ours():
            path = demand_store.path_in(self._conf)
            own = pathlib.Path(self._conf.numa_hugepages.demand_file)
            if not (
                path is None
                or own.is_absolute()
                or _is_set(self._conf, 'state_path')
            ):
                return _warning(
                    '[DEFAULT] state_path is not set, so what is known of the '
                    f'demand is kept in {path.parent}, where Nova is '
                    'installed. Set state_path, or make demand_file absolute.'
                )
            problem = demand_store.check(path) if path else None
            if problem:
                return _failure(
                    f'option [numa_hugepages] demand_file: {problem}. (That '
                    'is so for the user of this command; run it as the user '
                    'of the scheduler.)'
                )
        unknown = package_conf.unknown_names(self._conf)
        return _warning(' '.join(unknown)) if unknown else _SUCCESS

    def _check_filter(self) -> upgradecheck.Result:
        enabled = self._conf.filter_scheduler.enabled_filters
        if FILTER not in enabled:
            near = difflib.get_close_matches(FILTER, enabled, 1, _ALIKE)
            if near:
                return _failure(
                    f'There is no filter {near[0]}, which is in '
                    '[filter_scheduler] enabled_filters. Did you mean '
                    f'{FILTER}?'
                )
            return _failure(
                f'{FILTER} is not enabled. Add it to [filter_scheduler] '
                'enabled_filters.'
            )
        # As Nova's host manager does it; the last class of a name is the one
        # that it takes.
        handler = nova_filters.HostFilterHandler()
        by_name: dict[str, type] = {}
        for path in self._conf.filter_scheduler.available_filters:
            try:
                classes = handler.get_matching_classes([path])
            except _NOT_LOADED as error:
                return _failure(
                    f'The filter {path} of [filter_scheduler] '
                    'available_filters cannot be loaded: '
                    + _not_loaded(path, FILTER_PATH, error)
                )
            by_name.update((cls.__name__, cls) for cls in classes)
        missing = [
            name
            for name in self._conf.filter_scheduler.enabled_filters
            if name not in by_name and name != FILTER
        ]
        if missing:
            return _failure(
                f'Enabled but not available: {", ".join(missing)}. The '
                'scheduler will not start. Check the names in '
                '[filter_scheduler] enabled_filters, and keep the line '
                '"available_filters = nova.scheduler.filters.all_filters".'
            )
        found = by_name.get(FILTER)
        if found is None:
            return _failure(
                f'{FILTER} is enabled but not available. Add the line '
                f'"available_filters = {FILTER_PATH}" to [filter_scheduler], '
                'beside the one for nova.scheduler.filters.all_filters.'
            )
        found_path = f'{found.__module__}.{found.__qualname__}'
        if found_path != FILTER_PATH:
            return _failure(
                f'{FILTER} is {found_path}, and not the one of this package, '
                f'{FILTER_PATH}. Check [filter_scheduler] available_filters.'
            )
        return _SUCCESS

    def _check_stock_filter(self) -> upgradecheck.Result:
        enabled = self._conf.filter_scheduler.enabled_filters
        if FILTER in enabled and STOCK_FILTER in enabled:
            return _warning(
                f'{STOCK_FILTER} is enabled beside {FILTER}, which does the '
                'same job: each host is checked twice, and allocation '
                'candidates are pruned twice. Take it out of '
                '[filter_scheduler] enabled_filters.'
            )
        return _SUCCESS

    def _weighers_of_ours(self) -> int:
        """Count how often the weigher is enabled."""
        classes = self._conf.filter_scheduler.weight_classes
        return int(classes.count(WEIGHER_PATH))

    def _check_weigher(self) -> upgradecheck.Result:
        handler = nova_weights.HostWeightHandler()
        for path in self._conf.filter_scheduler.weight_classes:
            try:
                handler.get_matching_classes([path])
            except _NOT_LOADED as error:
                return _failure(
                    f'The weigher {path} of [filter_scheduler] '
                    'weight_classes cannot be loaded: '
                    + _not_loaded(path, WEIGHER_PATH, error)
                )
        count = self._weighers_of_ours()
        if not count:
            return _warning(
                f'{WEIGHER} is not enabled. The filter works without it, but '
                'hosts are weighed as by Nova alone, and fewer instances fit. '
                f'Add {WEIGHER_PATH} to [filter_scheduler] weight_classes, '
                'beside nova.scheduler.weights.all_weighers.'
            )
        problems = []
        options = self._conf.filter_scheduler
        if len(options.weight_classes) == count:
            problems.append(
                f'{WEIGHER} is the only weigher, so that hosts on which '
                'instances failed to start are not avoided. Add '
                'nova.scheduler.weights.all_weighers to [filter_scheduler] '
                'weight_classes.'
            )
        try:
            subset_size = options.host_subset_size
        except cfg.Error:
            found = package_conf.written(
                self._conf, 'filter_scheduler', 'host_subset_size'
            )
            return _failure(
                f'option [filter_scheduler] host_subset_size: {found}, '
                'expected a number from 1 on. Set it to 1.'
            )
        if subset_size > 1:
            problems.append(
                f'[filter_scheduler] host_subset_size is {subset_size}: Nova '
                f'takes any of so many best hosts, whatever {WEIGHER} makes '
                'of them. Set it to 1.'
            )
        if count > 1:
            problems.append(
                f'{WEIGHER_PATH} is {count} times in [filter_scheduler] '
                'weight_classes, and does its work as often. Name it once.'
            )
        if not self._multiplier():
            problems.append(
                f'{WEIGHER} has no effect, because [numa_hugepages] '
                'weight_multiplier is 0. Raise it, or take the weigher out of '
                '[filter_scheduler] weight_classes.'
            )
        if self._multiplier() < 0:
            problems.append(
                '[numa_hugepages] weight_multiplier is negative, so that the '
                'hosts that cost the fleet most come first. Make it positive.'
            )
        if FILTER not in self._conf.filter_scheduler.enabled_filters:
            problems.append(
                f'{WEIGHER} is enabled without {FILTER}. It then knows only '
                'of the hosts that passed the filters, not of the rest of the '
                f'fleet. Add {FILTER} to [filter_scheduler] enabled_filters.'
            )
        return _warning(' '.join(problems)) if problems else _SUCCESS

    def _multiplier(self) -> float:
        try:
            multiplier = self._conf.numa_hugepages.weight_multiplier
        except cfg.Error:
            multiplier = None
        # The check of the options reports it.
        return math.nan if multiplier is None else float(multiplier)

    def _check_signature(self) -> upgradecheck.Result:
        try:
            numa_fit.check_signature()
        except exception.SignatureMismatch as error:
            return _failure(str(error))
        return _SUCCESS

    _upgrade_checks = (
        ('Configuration files', _check_files),
        ('Options of [numa_hugepages]', _check_options),
        ('NUMAHugepagesFilter', _check_filter),
        ('NUMATopologyFilter', _check_stock_filter),
        ('NUMAHugepagesWeigher', _check_weigher),
        ("Nova's NUMA fit", _check_signature),
    )


def _not_loaded(path: str, ours: str, error: Exception) -> str:
    """Say why a class of an option cannot be loaded.

    :param ours: the class of this package that may have been meant
    """
    # oslo.utils has a traceback in its text.
    text = f'{str(error).partition(" ([")[0]}.'
    if difflib.get_close_matches(path, [ours], 1, _ALIKE):
        text += f' Did you mean {ours}?'
    return text


def _is_set(conf: cfg.ConfigOpts, name: str) -> bool:
    """Return whether an option of [DEFAULT] is in a file."""
    location = conf.get_location(name)
    return bool(location) and location.location.is_user_controlled


def run(argv: Sequence[str]) -> int:
    """Run the command.

    :param argv: the arguments after the name of the program
    :returns: 0 if all is well, 1 for a warning, 2 if the scheduler would not
        work, 255 if a check could not be made
    """
    conf = cfg.ConfigOpts()
    package_conf.register_opts(conf)
    paths_conf.register_opts(conf)
    scheduler_conf.register_opts(conf)
    try:
        code: int = upgradecheck.main(
            conf,
            project='nova',
            upgrade_command=Checks(conf),
            argv=list(argv) or ['--help'],
        )
    except (cfg.Error, OSError, UnicodeDecodeError) as error:
        print(f'The configuration cannot be read: {error}', file=sys.stderr)
        return CANNOT_RUN
    return code


def main() -> int:
    """Run the command with the arguments of the process.

    :returns: the exit code, see :func:`run`
    """
    return run(sys.argv[1:])


if __name__ == '__main__':
    sys.exit(main())
