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


"""Configuration of Sphinx for the documentation."""

import pathlib

project = 'nova-numa-hugepages'
copyright = 'the nova-numa-hugepages authors'

extensions = [
    'openstackdocstheme',
    'oslo_config.sphinxconfiggen',
    'oslo_config.sphinxext',
]

root_doc = 'index'
language = 'en'
pygments_style = 'native'
html_theme = 'openstackdocs'
html_theme_options = {'show_other_versions': False}
html_copy_source = False
html_static_path = ['_static']
html_css_files = ['wide.css']

# Much of what is shown is neither Python nor any other language.
highlight_language = 'text'

man_pages = [
    (
        f'cli/nova-numa-hugepages-{name}',
        f'nova-numa-hugepages-{name}',
        text,
        'the nova-numa-hugepages authors',
        1,
    )
    for name, text in (
        ('experiment', 'measure what placement and pages bring'),
        ('host', 'huge pages of a compute host'),
        ('monitor', 'watch a compute host and its instances'),
        ('simulate', 'try a fleet before changing it'),
        ('status', 'check the configuration of the scheduler'),
    )
]

openstackdocs_repo_name = ''
openstackdocs_auto_name = False
openstackdocs_auto_version = False
openstackdocs_pdf_link = False
openstackdocs_use_storyboard = False

ROOT = pathlib.Path(__file__).resolve().parents[2]
config_generator_config_file = [
    (
        str(
            ROOT
            / 'etc'
            / 'nova-numa-hugepages'
            / 'nova-numa-hugepages-config-generator.conf'
        ),
        '_static/nova-numa-hugepages',
    )
]
