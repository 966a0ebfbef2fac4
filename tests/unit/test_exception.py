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


from nova_numa_hugepages import exception


def test_a_mismatch_names_both_signatures_and_the_remedy():
    error = exception.SignatureMismatch('(a, b=None)', '(a, b, c)')

    assert 'written for the signature (a, b=None),' in str(error)
    assert 'the installed Nova has (a, b, c).' in str(error)
    assert 'enabled_filters' in str(error)


def test_invalid_stats_say_what_is_wrong():
    error = exception.InvalidStats('version 2 is newer than 1')

    assert str(error) == (
        "the host's 'numa_hugepages' stats cannot be read: "
        'version 2 is newer than 1'
    )


def test_an_invalid_extra_spec_names_itself_its_value_and_what_is_expected():
    error = exception.InvalidExtraSpec('ns:name', 'x', 'an integer')

    assert str(error).startswith("extra spec ns:name is 'x'; expected an int")


def test_an_invalid_option_is_named_with_its_group():
    error = exception.InvalidOption('numa_hugepages', 'some_option', 'too big')

    assert str(error) == 'option [numa_hugepages] some_option: too big'


def test_all_errors_can_be_caught_as_one():
    errors = [
        exception.SignatureMismatch('()', '(a)'),
        exception.InvalidStats(''),
        exception.InvalidExtraSpec('', '', ''),
        exception.InvalidOption('', '', ''),
    ]

    assert all(
        isinstance(error, exception.NUMAHugepagesError) for error in errors
    )
