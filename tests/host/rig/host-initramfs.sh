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

# The first thing that runs in a virtual host. Its root is this machine's,
# read-only, with a tmpfs over it for what the host writes.

/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /below /above /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module"
done
mount -t virtiofs -o ro root /below
mount -t tmpfs -o size=1g,mpol=interleave tmpfs /above
mkdir /above/upper /above/work
mount -t overlay -o \
    lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /root
mkdir -p /root/run /root/rig-init
mount -t tmpfs tmpfs /root/rig-init
cp /bin/busybox /host-init /root/rig-init/
for place in proc sys dev; do
    mount -o move "/$place" "/root/$place"
done
exec switch_root /root /rig-init/busybox sh /rig-init/host-init
