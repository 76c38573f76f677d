"""Containers as a tree, of a list in which each says its parent.

How the command draws one is in `sysproc_client.cli.output`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sysproc_client._core.container_facts import ContainerFacts

C = TypeVar("C", bound=ContainerFacts)


@dataclass(frozen=True)
class Tree(Generic[C]):
    """A container and the trees of its children, oldest first; iterated, all containers, parents before children."""

    container: C
    children: Sequence["Tree[C]"] = field(default_factory=list)

    def __iter__(self) -> Iterator[C]:
        waiting: list[Tree[C]] = [self]
        while waiting:
            tree = waiting.pop()
            yield tree.container
            waiting.extend(reversed(tree.children))


def tree_of(top: C, below: Iterable[C]) -> Tree[C]:
    """The tree of a container and of all that are below it, in any order; what has no parent among them is left out."""
    by_parent: dict[str, list[Tree[C]]] = {top.id: []}
    for one in below:
        if one.id != top.id:
            by_parent.setdefault(one.parent_id, []).append(Tree(one, by_parent.setdefault(one.id, [])))
    return Tree(top, by_parent[top.id])
