"""The reference of a partition in an address:
it stands for one text of one limiter, and tells nobody which.
"""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.web.app.references import LONGEST_PARTITION, make_reference, read_reference

OLD, NEW = b"an old secret", b"a new secret"
# What Postgres can keep of a text.
texts = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"),
    max_size=LONGEST_PARTITION,
)


@given(texts)
def test_it_stands_for_the_text_of_its_limiter_alone(partition: str) -> None:
    reference = make_reference(OLD, "api", partition)
    assert reference == make_reference(OLD, "api", partition), "a page stays the same text"
    assert reference == quote(reference, safe="")
    assert read_reference([NEW, OLD], "api", reference) == partition
    assert read_reference([NEW, OLD], "other", reference) is None
    assert read_reference([NEW], "api", reference) is None


@given(texts, st.data())
def test_a_changed_one_is_none(partition: str, data: st.DataObject) -> None:
    reference = make_reference(NEW, "api", partition)
    at = data.draw(st.integers(0, len(reference) - 2))
    other = data.draw(st.sampled_from("AZaz09-_").filter(lambda char: char != reference[at]))
    changed = reference[:at] + other + reference[at + 1 :]
    assert read_reference([NEW], "api", changed) is None
    assert read_reference([NEW], "api", reference[:at]) is None


@given(texts, texts)
def test_its_length_tells_of_a_text_only_how_many_blocks_it_has(one: str, other: str) -> None:
    blocks = [len(text.encode()) // 32 for text in (one, other)]
    sizes = [len(make_reference(NEW, "api", text)) for text in (one, other)]
    assert (sizes[0] == sizes[1]) == (blocks[0] == blocks[1])
