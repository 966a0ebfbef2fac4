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

# PID 1 of a virtual host: file systems, libvirt, and the agent that runs the
# tests' commands. There is no systemd.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LC_ALL=C.UTF-8
box() { /rig-init/busybox "$@"; }
say() {
    echo "rig: $* after $(box cut -d' ' -f1 /proc/uptime) s" >/dev/console
}

box mkdir -p /dev/pts /dev/shm
box mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
box mount -t tmpfs tmpfs /dev/shm
box mount -t tmpfs -o mode=755 tmpfs /run
box mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpuset +cpu +memory +io +pids +hugetlb' \
    >/sys/fs/cgroup/cgroup.subtree_control
for size in 2M 1G; do
    box mkdir -p "/run/hugepages-$size"
    box mount -t hugetlbfs -o "pagesize=$size" none "/run/hugepages-$size"
done
# What outlives a reboot.
box mkdir -p /persist
box mount -t ext4 /dev/vda /persist

# The kernel boots on one CPU; virtual.py says why.
for cpu in /sys/devices/system/cpu/cpu*/online; do
    [ "$(cat "$cpu")" = 1 ] || echo 1 >"$cpu"
done

for word in $(box cat /proc/cmdline); do
    case $word in rig.*) export "rig_${word#rig.}" ;; esac
done
box hostname "$rig_name"
box ip link set lo up
for device in /sys/class/net/eth*; do
    [ -e "$device/address" ] || continue
    case $(cat "$device/address") in
    52:54:00:00:00:*) address=$rig_address ;;
    # The address that QEMU gives to all that ask.
    *) address=10.0.2.15 ;;
    esac
    box ip addr add "$address/24" dev "${device##*/}"
    box ip link set "${device##*/}" up
done
printf '%s\n' '127.0.0.1 localhost' "${rig_address:-127.0.1.1} $rig_name" \
    >/etc/hosts

# Each place that libvirt writes to is the virtual host's own; what it knows
# of QEMU is kept, as asking QEMU takes long.
box mkdir -p /run/libvirt /persist/libvirt/cache
for place in etc/libvirt var/lib/libvirt var/log/libvirt; do
    box mkdir -p "/$place"
    box mount -t tmpfs tmpfs "/$place"
done
box mkdir -p /var/cache/libvirt
box mount -o bind /persist/libvirt/cache /var/cache/libvirt
# libvirtd looks for the user that its package has for QEMU, and doesn't use
# it. Where only the packages with the programs are, there is none.
grep -q ^libvirt-qemu: /etc/passwd \
    || echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >>/etc/passwd
for name in libvirt-qemu:64055 kvm:64056; do
    grep -q "^${name%:*}:" /etc/group \
        || echo "${name%:*}:x:${name#*:}:" >>/etc/group
done
cat >/etc/libvirt/qemu.conf <<'END'
user = "root"
group = "root"
security_driver = "none"
seccomp_sandbox = 0
stdio_handler = "file"
remember_owner = 0
hugetlbfs_mount = [ "/run/hugepages-2M", "/run/hugepages-1G" ]
END
cat >/etc/libvirt/libvirtd.conf <<'END'
auth_unix_rw = "none"
auth_tcp = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
END
# Only a virtual host with a peer has a network, and nothing else is on it.
listen=
[ -z "${rig_address:-}" ] || listen=--listen
libvirtd $listen </dev/null >/var/log/libvirt/console.log 2>&1 &

for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name")" = log ]; then
        box ln -s "/dev/${port##*/}" /run/service-log
    fi
done
say 'the agent starts'
while :; do
    "$rig_python" -I -S "$rig_agent" /dev/vport*p1 >/dev/console 2>&1
    box sleep 1
done
