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

"""Attributes of our own on Nova's objects.

They are no fields: they are never saved or sent, and are gone with the object.
Nova hands these objects from one of its plug-in points to the next, which is
the only way for ours to share what they know.
"""

# On the NUMATopology of a host: the stats that the host reports, for the fit;
# None on a host that runs the stock driver.
HOST_STATS = '_numa_hugepages_host_stats'

# On an InstanceNUMATopology that our fit has returned: the page sizes that
# were asked for.
ASKED_PAGE_SIZES = '_numa_hugepages_asked_page_sizes'

# On a RequestSpec: the cache of our filter and weigher.
REQUEST_CACHE = '_numa_hugepages_request_cache'
