#!/bin/bash
#
# **plugin.sh** - DevStack plugin of nova-numa-hugepages
#
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

# DevStack sources this file with a mode and, for the mode ``stack``, a phase.
# It runs with ``errexit``, so nothing here may end on a test that fails.

# Save trace setting
_XTRACE_NUMA_HUGEPAGES=$(set +o | grep xtrace)
set +o xtrace

NOVA_NUMA_HUGEPAGES_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The kernel's files of the nodes. Tests set it.
NOVA_NUMA_HUGEPAGES_NODES=${NOVA_NUMA_HUGEPAGES_NODES:-/sys/devices/system/node}

_NUMA_HUGEPAGES_PACKAGE=nova_numa_hugepages
_NUMA_HUGEPAGES_FILTER=NUMAHugepagesFilter
_NUMA_HUGEPAGES_WEIGHER=$_NUMA_HUGEPAGES_PACKAGE.scheduler.weights.NUMAHugepagesWeigher

# What Nova enables if nova.conf says nothing.
_NUMA_HUGEPAGES_NOVA_FILTERS=ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter


# Functions
# ---------

# _numa_hugepages_confs() - The configuration files of Nova's services
#
# Versions of DevStack differ in when they copy nova.conf to nova-cpu.conf, so
# both get the same, if they exist.
function _numa_hugepages_confs {
    echo "$NOVA_CONF"
    if [[ -n ${NOVA_CPU_CONF:-} && $NOVA_CPU_CONF != "$NOVA_CONF" \
            && -e $NOVA_CPU_CONF ]]; then
        echo "$NOVA_CPU_CONF"
    fi
}

# _numa_hugepages_set() - Set an option in all of them
# _numa_hugepages_set section option value
function _numa_hugepages_set {
    local conf
    for conf in $(_numa_hugepages_confs); do
        iniset "$conf" "$1" "$2" "$3"
    done
}

# _numa_hugepages_with() - Add an item to a list that does not have it
# _numa_hugepages_with list item
function _numa_hugepages_with {
    local list=${1// /}
    if [[ ,$list, != *,$2,* ]]; then
        list+=${list:+,}$2
    fi
    echo "$list"
}

# _numa_hugepages_filters() - Put our filter into a list, in place of Nova's
# _numa_hugepages_filters list
function _numa_hugepages_filters {
    local list="" name
    for name in ${1//,/ }; do
        if [[ $name == NUMATopologyFilter ]]; then
            name=$_NUMA_HUGEPAGES_FILTER
        fi
        list=$(_numa_hugepages_with "$list" "$name")
    done
    _numa_hugepages_with "$list" "$_NUMA_HUGEPAGES_FILTER"
}

# install_numa_hugepages() - Install the package into Nova's environment
#
# Nova is installed again so that its folder is on Python's path. By default
# setuptools uses a hook that comes after the path, and there the folder
# nova/virt/numa_hugepages of this package would hide the rest of Nova. The
# dependencies are installed with Nova.
function install_numa_hugepages {
    pip_install --no-deps --config-settings editable_mode=compat \
        --editable "$NOVA_DIR"
    pip_install --no-deps --editable "$NOVA_NUMA_HUGEPAGES_DIR"
    if is_service_enabled numa-hugepages-monitor; then
        # Its other dependencies are Nova's.
        pip_install prometheus_client
    fi
}

# start_numa_hugepages_monitor() - Run the monitor, as root: it reads the memory
# of all guests
function start_numa_hugepages_monitor {
    run_process numa-hugepages-monitor \
        "$NOVA_BIN_DIR/nova-numa-hugepages monitor --config-file $NOVA_CONF --state-path $NOVA_STATE_PATH --history $NOVA_STATE_PATH/numa-hugepages-history.sqlite" \
        "" root
}

# configure_numa_hugepages_scheduler() - Enable the filter and the weigher
function configure_numa_hugepages_scheduler {
    local classes found
    if [[ $NOVA_NUMA_HUGEPAGES_FILTER == True ]]; then
        classes=$(iniget_multiline "$NOVA_CONF" filter_scheduler \
            available_filters)
        classes=${classes:-nova.scheduler.filters.all_filters}
        found=$_NUMA_HUGEPAGES_PACKAGE.scheduler.filters.$_NUMA_HUGEPAGES_FILTER
        if [[ " $classes " != *" $found "* ]]; then
            classes+=" $found"
        fi
        # One value for each word.
        # shellcheck disable=SC2086
        iniset_multiline "$NOVA_CONF" filter_scheduler available_filters \
            $classes
        found=$(iniget "$NOVA_CONF" filter_scheduler enabled_filters)
        iniset "$NOVA_CONF" filter_scheduler enabled_filters \
            "$(_numa_hugepages_filters \
                "${found:-$_NUMA_HUGEPAGES_NOVA_FILTERS}")"
    fi
    if [[ $NOVA_NUMA_HUGEPAGES_WEIGHER == True ]]; then
        found=$(iniget "$NOVA_CONF" filter_scheduler weight_classes)
        iniset "$NOVA_CONF" filter_scheduler weight_classes \
            "$(_numa_hugepages_with \
                "${found:-nova.scheduler.weights.all_weighers}" \
                "$_NUMA_HUGEPAGES_WEIGHER")"
    fi
}

# configure_numa_hugepages_compute() - Enable the driver
#
# Its helper is started as DevStack starts those of os-brick and os-vif: with
# the full path, which sudo requires.
function configure_numa_hugepages_compute {
    if [[ $NOVA_NUMA_HUGEPAGES_DRIVER != True ]]; then
        return 0
    fi
    if [[ $VIRT_DRIVER != libvirt ]]; then
        echo "NUMAHugepagesDriver needs VIRT_DRIVER=libvirt; not enabled."
        return 0
    fi
    _numa_hugepages_set DEFAULT compute_driver \
        numa_hugepages.NUMAHugepagesDriver
    _numa_hugepages_set numa_hugepages_privileged helper_command \
        "sudo $NOVA_ROOTWRAP $NOVA_CONF_DIR/rootwrap.conf privsep-helper --config-file $NOVA_CONF"
}

# configure_numa_hugepages_options() - Set the options of the user
function configure_numa_hugepages_options {
    local option
    for option in $NOVA_NUMA_HUGEPAGES_OPTIONS; do
        _numa_hugepages_set numa_hugepages "${option%%=*}" "${option#*=}"
    done
}

# configure_numa_hugepages() - Write the configuration of Nova
#
# DevStack may still be writing to the same files in the background.
function configure_numa_hugepages {
    if declare -F async_wait >/dev/null; then
        async_wait configure_neutron_nova
    fi
    if is_service_enabled n-sch; then
        configure_numa_hugepages_scheduler
    fi
    if is_service_enabled n-cpu; then
        configure_numa_hugepages_compute
    fi
    configure_numa_hugepages_options
}

# check_numa_hugepages() - Check the configuration with upgrade check
function check_numa_hugepages {
    local status=0
    "$NOVA_BIN_DIR/nova-numa-hugepages-status" --config-file "$NOVA_CONF" \
        upgrade check || status=$?
    # 1 is for warnings only.
    if [[ $status -gt 1 ]]; then
        die $LINENO "nova-numa-hugepages cannot work with $NOVA_CONF"
    fi
}

# _numa_hugepages_host_nodes() - Count the nodes of this host that have CPUs
function _numa_hugepages_host_nodes {
    local file nodes=0
    for file in "$NOVA_NUMA_HUGEPAGES_NODES"/node[0-9]*/cpulist; do
        if [[ -n $(cat "$file") ]]; then
            nodes=$((nodes + 1))
        fi
    done
    echo $nodes
}

# _numa_hugepages_distances() - Whether this host has distances between nodes
#
# A kernel that emulates nodes reports 10 for all of them.
function _numa_hugepages_distances {
    cat "$NOVA_NUMA_HUGEPAGES_NODES"/node[0-9]*/distance | awk '
        { for (i = 1; i <= NF; i++) if ($i == 10) own++ }
        END { print own == NR ? "True" : "False" }'
}

# configure_numa_hugepages_tempest() - Write tempest.conf
#
# What the tests may expect of the cloud is read from this host. If others
# differ, the user sets the options.
function configure_numa_hugepages_tempest {
    local option value host
    iniset "$TEMPEST_CONFIG" service_available numa_hugepages \
        "$NOVA_NUMA_HUGEPAGES_FILTER"
    if is_service_enabled n-cpu; then
        iniset "$TEMPEST_CONFIG" numa_hugepages host_nodes \
            "$(_numa_hugepages_host_nodes)"
        value=False
        if [[ $NOVA_NUMA_HUGEPAGES_DRIVER == True \
                && $VIRT_DRIVER == libvirt ]]; then
            value=$(_numa_hugepages_distances)
        fi
        iniset "$TEMPEST_CONFIG" numa_hugepages distances_known "$value"
        value=False
        if [[ -n $(iniget "$NOVA_CONF" compute cpu_dedicated_set) ]]; then
            value=True
        fi
        iniset "$TEMPEST_CONFIG" numa_hugepages dedicated_cpus "$value"
        for option in page_pools warm_margin_mib; do
            value=$(iniget "$NOVA_CONF" numa_hugepages $option)
            if [[ -n $value ]]; then
                iniset "$TEMPEST_CONFIG" numa_hugepages $option "$value"
            fi
        done
    fi
    if [[ $NOVA_NUMA_HUGEPAGES_WHITEBOX == True ]]; then
        iniset "$TEMPEST_CONFIG" numa_hugepages whitebox True
        # The hypervisor hostname of Nova. Without it, tests don't know which
        # host to read before there is a server.
        host=$(sudo virsh --connect qemu:///system hostname)
        iniset "$TEMPEST_CONFIG" numa_hugepages computes "$host:sudo sh -c"
        iniset "$TEMPEST_CONFIG" numa_hugepages host_command \
            "$NOVA_BIN_DIR/nova-numa-hugepages host show -f json --state-path $NOVA_STATE_PATH"
    fi
    for option in $NOVA_NUMA_HUGEPAGES_TEMPEST_OPTIONS; do
        iniset "$TEMPEST_CONFIG" numa_hugepages \
            "${option%%=*}" "${option#*=}"
    done
}

# free_numa_hugepages() - Shrink the pools to their old size
#
# DevStack destroys the guests after this. Pages that were allocated for them
# and that they still have become surplus now, and are freed with them. The next
# stack.sh knows nothing of these guests, so the ledger is deleted, too.
function free_numa_hugepages {
    local ledger=$NOVA_STATE_PATH/nova-numa-hugepages-ledger.sqlite
    local node size_kib floor grown
    if [[ ! -e $ledger ]]; then
        return 0
    fi
    stop_process n-cpu
    while read -r node size_kib floor grown; do
        if [[ $grown =~ ^[1-9][0-9]*$ && $floor =~ ^[0-9]+$ ]]; then
            echo "$floor" | sudo tee "$NOVA_NUMA_HUGEPAGES_NODES/node$node/hugepages/hugepages-${size_kib}kB/nr_hugepages" >/dev/null
        fi
    done < <(sudo "$NOVA_BIN_DIR/nova-numa-hugepages" host show \
        --ledger "$ledger" -f value \
        -c node -c size_kib -c floor -c grown </dev/null)
    sudo rm -f "$ledger" "$ledger-wal" "$ledger-shm" \
        "$NOVA_STATE_PATH/huge-pages.lock"
}


# Dispatch
# --------

if is_service_enabled n-api n-sch n-cpu; then
    if [[ $1 == stack && $2 == install ]]; then
        echo_summary "Installing nova-numa-hugepages"
        install_numa_hugepages

    elif [[ $1 == stack && $2 == post-config ]]; then
        echo_summary "Configuring nova-numa-hugepages"
        configure_numa_hugepages

    elif [[ $1 == stack && $2 == extra ]]; then
        if is_service_enabled n-sch \
                && [[ $NOVA_NUMA_HUGEPAGES_FILTER == True ]]; then
            echo_summary "Checking nova-numa-hugepages"
            check_numa_hugepages
        fi
        if is_service_enabled numa-hugepages-monitor; then
            start_numa_hugepages_monitor
        fi

    elif [[ $1 == stack && $2 == test-config ]]; then
        if is_service_enabled tempest; then
            echo_summary "Configuring Tempest for nova-numa-hugepages"
            configure_numa_hugepages_tempest
        fi

    elif [[ $1 == unstack ]]; then
        if is_service_enabled numa-hugepages-monitor; then
            stop_process numa-hugepages-monitor
        fi
        if is_service_enabled n-cpu; then
            free_numa_hugepages
        fi
        # stack.sh writes a new nova.conf. But the way in which it installs Nova
        # does not work with this package.
        pip_uninstall nova-numa-hugepages

    elif [[ $1 == clean ]]; then
        # unstack.sh has run before.
        sudo rm -f "$NOVA_STATE_PATH"/nova-numa-hugepages-demand.json* \
            "$NOVA_STATE_PATH"/numa-hugepages-history.sqlite*
    fi
fi

# Restore xtrace
$_XTRACE_NUMA_HUGEPAGES
