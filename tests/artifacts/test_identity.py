"""Identity: the same content has one hash; what differs is named field by field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.identity import ABSENT, canonical_json, differences, identity_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
payloads = st.dictionaries(st.text(min_size=1, max_size=5), values, max_size=4)


@given(payloads)
def test_identity_does_not_depend_on_the_order_of_keys(payload):
    assert identity_of(dict(reversed(payload.items()))) == identity_of(payload)


@given(payloads, payloads)
def test_differences_are_empty_exactly_when_the_identities_agree(one, other):
    found = list(differences(one, other))
    assert (not found) == (identity_of(one) == identity_of(other))


def test_differences_name_the_leaf():
    before = {"config": {"tokens": 5, "data": {"ja": 0.9}}, "inputs": {"ja": "aa"}}
    after = {"config": {"tokens": 6, "data": {"ja": 0.9, "en": 0.1}}, "inputs": {"ja": "aa"}}
    assert [str(d) for d in differences(before, after)] == [
        "config.data.en: (absent) -> 0.1",
        "config.tokens: 5 -> 6",
    ]
    assert next(differences(before, after)).before is ABSENT


@pytest.mark.parametrize("value", [print, object(), {1, 2}, b"x"])
def test_canonical_json_refuses_what_has_no_stable_form(value):
    with pytest.raises(TypeError):
        canonical_json({"x": value})


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})
