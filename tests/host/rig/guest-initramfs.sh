#!/bin/busybox sh
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

# All that runs in a guest: it prints which nodes it sees, and that it lives.

/bin/busybox --install -s /bin
mkdir -p /proc /sys
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(cat /modules/order); do
    # ignore=NAME: it has no such driver.
    ! grep -qw "ignore=${module%%.*}" /proc/cmdline || continue
    insmod "/modules/$module"
done
for node in /sys/devices/system/node/node[0-9]*; do
    echo "node ${node##*node}: cpus $(cat "$node/cpulist")," \
        "distances $(cat "$node/distance")"
done
# grow=1: programs have a MiB more with each beat.
# fill=MIB: programs have that much for a minute.
# swap=MIB: it has so much swap, in memory that is compressed, and programs read
# what they have filled again and again.
mkdir -p /fill /dev
mknod /zero c 1 5
# It may come to have more memory.
mount -t tmpfs -o size=64g fill /fill
swap=$(sed -n 's/.*swap=\([0-9]*\).*/\1/p' /proc/cmdline)
if [ -n "$swap" ]; then
    mknod /dev/zram0 b $(tr : ' ' </sys/block/zram0/dev)
    echo "${swap}M" >/sys/block/zram0/disksize
    mkswap /dev/zram0
    swapon /dev/zram0
fi
fill=$(sed -n 's/.*fill=\([0-9]*\).*/\1/p' /proc/cmdline)
if [ -n "$fill" ]; then
    dd if=/zero of=/fill/memory bs=1M count="$fill"
fi
# touch=PAGES: it writes to so many pages of its first memory device that it
# was not given. That begins at 4 GiB, where a small guest has nothing else.
touch=$(sed -n 's/.*touch=\([0-9]*\).*/\1/p' /proc/cmdline)
if [ -n "$touch" ]; then
    mknod /dev/mem c 1 1
    while [ "$touch" -gt 0 ]; do
        touch=$((touch - 1))
        devmem $((0x100000000 + touch * 2097152)) 8 1 || break
    done
    echo "touched, but for $touch"
fi
# What it is told on its second serial port: fill MIB, free, bind NODE, or
# reboot.
mknod /dev/ttyS1 c 4 65
if stty -F /dev/ttyS1 raw -echo clocal 2>/dev/null; then
    while read -r word mib; do
        case $word in
        # Slowly enough for the host to follow.
        fill)
            while [ "$mib" -gt 0 ]; do
                dd if=/zero bs=1M count=1 2>/dev/null >>/fill/told
                mib=$((mib - 1))
                sleep 0.3
            done
            ;;
        free) rm -f /fill/told ;;
        # What it is told to fill from now on is on that NUMA node.
        bind) mount -o "remount,mpol=bind:$mib" /fill ;;
        reboot) reboot -f ;;
        esac
        echo "told $word"
    done </dev/ttyS1 &
fi
if [ -e /bin/qemu-ga ]; then
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ] || continue
        mknod /dev/agent c $(tr : ' ' <"$port/dev")
        mkdir -p /run
        qemu-ga --method=virtio-serial --path=/dev/agent --statedir=/run &
    done
fi
beat=0
# To read all of it takes long where it is swapped.
last=$([ -n "$swap" ] && echo 3 || echo 30)
while :; do
    [ "$beat" -ne "$last" ] || rm -f /fill/memory
    if [ -n "$swap" ] && [ -e /fill/memory ]; then
        wc -c </fill/memory
    fi
    if grep -q grow=1 /proc/cmdline; then
        dd if=/zero bs=1M count=1 2>/dev/null >>/fill/grown
    fi
    beat=$((beat + 1))
    echo "beat $beat"
    sleep 2
done
