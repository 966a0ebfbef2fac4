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


"""Texts in source code, and quotations of them in documents.

A text in code has holes for its values. A quotation has examples in their
place, such as ``2048``, ``compute-7`` or ``5f0f…``, and an ellipsis of its own
where something is left out. Many messages are put together from several texts:
what a quotation has in the place of a hole may be another text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
import itertools
import pathlib
import re
from typing import NamedTuple

HOLE = '\0'
ELLIPSIS = '…'

Tokens = tuple[str, ...]

_TOKEN = re.compile(rf'[\w{HOLE}/](?:[\w{HOLE}./-]*[\w{HOLE}…])?|[^\w\s]')
_FIELD = re.compile(r'%(?:\(\w+\))?[.\d]*[a-z]|\{\w*\}')
_PLAIN_WORD = re.compile(r'[a-z]{2,}')
# A quotation may end where a sentence or a clause does.
_ENDS = frozenset('.:;')
# Texts that `str.join` puts together.
_JOINED = tuple((HOLE, mark, HOLE) for mark in ',;')


class LogCall(NamedTuple):
    """A call of a logger.

    :ivar where: its file and line
    """

    where: str
    level: str
    text: str


def tokens(text: str) -> Tokens:
    """Split a text into words and marks, but for the mark at its end."""
    one_hole = re.sub(f'{HOLE}+', HOLE, text)
    return tuple(_TOKEN.findall(one_hole.rstrip().rstrip('.:')))


def has_words(text: Tokens) -> bool:
    """Check whether a text is more than values and marks."""
    return any(_PLAIN_WORD.search(token) for token in text)


class Messages:
    """The texts and the log calls of Python files.

    :param files: the files
    :param top: the folder that paths are relative to
    """

    def __init__(self, files: Iterable[pathlib.Path], top: pathlib.Path):
        trees = {
            str(path.relative_to(top)): ast.parse(path.read_text('utf-8'))
            for path in files
        }
        self._constants = dict(
            itertools.chain.from_iterable(map(_constants, trees.values()))
        )
        texts = {tokens(t) for tree in trees.values() for t in _texts(tree)}
        self._texts = [*_JOINED, *filter(_is_more_than_values, texts)]
        self._by_start: dict[str, list[Tokens]] = {}
        for text in self._texts:
            start = '' if HOLE in text[0] else text[0]
            self._by_start.setdefault(start, []).append(text)
        self._known: dict[Tokens, bool] = {}
        self.log_calls = [
            LogCall(f'{path}:{call.lineno}', level, text)
            for path, tree in trees.items()
            for call, level, text in self._log_calls(tree)
        ]

    def _log_calls(self, tree: ast.AST) -> Iterator[tuple[ast.Call, str, str]]:
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name('LOG'), attr=level),
                    args=[first, *others],
                ):
                    text = others[0] if level == 'log' else first
                    for alternative in self._alternatives(text):
                        yield node, level, alternative

    def _alternatives(self, node: ast.AST) -> Iterator[str]:
        """Get the texts that an argument may be."""
        match node:
            case ast.IfExp(body=one, orelse=other):
                yield from self._alternatives(one)
                yield from self._alternatives(other)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield self._constants.get(name, HOLE)
            case _:
                yield _text(node) or HOLE

    def are_quoted(self, quotation: str) -> bool:
        """Check whether a quotation is of these texts."""
        return self._is_text(tokens(quotation))

    def have_in_them(self, phrase: str) -> bool:
        """Check whether a phrase is a part of these texts.

        :param phrase: its first letter may be a capital where the text has
            none
        """
        lowered = phrase[0].lower() + phrase[1:]
        return any(
            self._is_text((ELLIPSIS, *tokens(words), ELLIPSIS))
            for words in {phrase, lowered}
        )

    def quote(self, quotation: str, text: str) -> bool:
        """Check whether a quotation is of one text.

        Half of the words of its first clause have to be in it, so that an
        ellipsis does not stand for all that there is.

        :param text: with its holes, as a log call has it
        """
        wanted = tokens(text)
        words = _first_clause(wanted)
        quoted = words.intersection(tokens(quotation))
        return 2 * len(quoted) >= len(words) and self._matches(
            wanted, tokens(quotation)
        )

    def _is_text(self, quotation: Tokens) -> bool:
        if quotation not in self._known:
            # Where the same question comes up on the way, the answer is no.
            self._known[quotation] = False
            starts = self._by_start
            candidates = (
                self._texts
                if quotation[0] == ELLIPSIS
                else [*starts.get(quotation[0], []), *starts.get('', [])]
            )
            self._known[quotation] = any(
                self._matches(text, quotation) for text in candidates
            )
        return self._known[quotation]

    def _may_be_in_a_hole(self, words: Tokens) -> bool:
        """Check whether words are an example, a text, or a count of it."""
        return (
            not any(map(_PLAIN_WORD.fullmatch, words))
            or self._is_text(words)
            or (words[0].isdigit() and self._is_text(words[1:]))
        )

    def _matches(self, text: Tokens, quotation: Tokens) -> bool:
        """Walk through both side by side.

        :param text: with holes
        :param quotation: with ellipses
        """
        seen = set()
        ahead = [(0, 0)]
        while ahead:
            state = ahead.pop()
            if state in seen:
                continue
            seen.add(state)
            at, to = state
            rest, quoted = text[at:], quotation[to:]
            if not quoted:
                if at and (not rest or rest[0] in _ENDS):
                    return True
            elif quoted[0] == ELLIPSIS:
                ahead.append((at, to + 1))
                if rest:
                    ahead.append((at + 1, to))
            if not rest or not quoted:
                continue
            if rest[0] == HOLE:
                ahead += [
                    (at + 1, end)
                    for end in range(to + 1, len(quotation) + 1)
                    if _may_go_on(rest[1:], quotation[end:])
                    and self._may_be_in_a_hole(quotation[to:end])
                ]
            elif _is_example(quoted[0], rest[0]):
                ahead.append((at + 1, to + 1))
        return False


def _first_clause(text: Tokens) -> set[str]:
    """Get the words up to the first mark that ends some."""
    words: set[str] = set()
    for token in text:
        if words and token in _ENDS:
            break
        if _PLAIN_WORD.fullmatch(token):
            words.add(token)
    return words


def _is_more_than_values(text: Tokens) -> bool:
    return any(token.strip(HOLE) for token in text)


def _may_go_on(text: Tokens, quotation: Tokens) -> bool:
    """Check what comes next, before what is in a hole is looked up."""
    if not quotation:
        return not text or text[0] in _ENDS
    if quotation[0] == ELLIPSIS:
        return True
    return bool(text) and _is_example(quotation[0], text[0])


def _is_example(word: str, token: str) -> bool:
    """Compare a word of a quotation with one that may have holes in it."""
    if HOLE not in token:
        return word == token
    return bool(
        re.fullmatch('.+'.join(map(re.escape, token.split(HOLE))), word)
    )


def _text(node: ast.AST) -> str | None:
    """Get the text that an expression makes; None if it makes none."""
    match node:
        case ast.Constant(value=str(text)):
            return _FIELD.sub(HOLE, text.replace('%%', '%'))
        case ast.JoinedStr(values=parts):
            return ''.join(
                part.value if isinstance(part, ast.Constant) else HOLE
                for part in parts
            )
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            texts = _text(left), _text(right)
            if texts != (None, None):
                return ''.join(f' {HOLE} ' if t is None else t for t in texts)
    return None


def _texts(node: ast.AST) -> Iterator[str]:
    """Get all texts below a node, docstrings aside."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant()):
                continue
        text = _text(child)
        if text is not None:
            yield text
        yield from _texts(child)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                text = _text(value)
                if text is not None:
                    yield name, text
