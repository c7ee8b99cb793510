# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from openllm.data.prepare.split import TEST, TRAIN, VALIDATION, SplitConfig, assign, title_key


def make(groups, titled=True, sizes=1000, sources=0):
    count = len(groups)
    return (
        np.array([title_key(str(group)) for group in groups], dtype=np.uint64),
        np.broadcast_to(titled, count).astype(bool),
        np.broadcast_to(sizes, count).astype(np.int64),
        np.broadcast_to(sources, count).astype(np.int64),
    )


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5000)), min_size=1, max_size=200),
    st.integers(0, 5),
)
@example([(1, 5000), (2, 1), (3, 1)], 0)
def test_a_group_goes_to_one_side_and_no_budget_is_overdrawn(rows, seed):
    groups, sizes = zip(*rows, strict=True)
    config = SplitConfig(seed=seed, validation=0.1, test=0.2)
    side = assign(*make(groups, sizes=np.array(sizes)), config)
    for group in set(groups):
        assert len({s for s, g in zip(side, groups, strict=True) if g == group}) == 1
    total = sum(sizes)
    largest = max(sum(s for g, s in rows if g == group) for group in set(groups))
    for which, share in ((TEST, 0.2), (VALIDATION, 0.1)):
        held = sum(size for size, s in zip(sizes, side, strict=True) if s == which)
        assert held <= max(share * total, largest)
    if len(set(groups)) >= 3:
        assert (side == TEST).any() and (side == VALIDATION).any() and (side == TRAIN).any()


def test_shares_are_met_and_the_seed_draws():
    facts = make(range(1000))
    one = assign(*facts, SplitConfig(validation=0.05, test=0.1))
    assert [(one == side).sum() for side in (TRAIN, VALIDATION, TEST)] == [850, 50, 100]
    other = assign(*facts, SplitConfig(validation=0.05, test=0.1, seed=1))
    assert (one != other).any()


def test_sides_do_not_depend_on_the_order_of_documents():
    groups, titled, sizes, sources = make([i % 50 for i in range(300)])
    side = assign(groups, titled, sizes, sources, SplitConfig())
    turned = assign(groups[::-1], titled, sizes, sources, SplitConfig())
    assert side[::-1].tolist() == turned.tolist()


def test_each_source_is_drawn_from_apart():
    sources = np.array([0] * 100 + [1] * 200)
    side = assign(*make(range(300), sources=sources), SplitConfig(validation=0.1, test=0.1))
    assert (side[sources == 0] == TEST).sum() == 10
    assert (side[sources == 1] == TEST).sum() == 20


def test_heldout_text_has_titles_where_enough_has():
    titled = np.arange(300) < 150
    side = assign(*make(range(300), titled=titled), SplitConfig())
    assert (side == TEST).sum() == 15
    assert (side[~titled] == TRAIN).all()
    few = np.arange(300) < 10
    side = assign(*make(range(300), titled=few), SplitConfig())
    assert (side == TEST).sum() == 15, "ten titles are not enough, so all documents may be drawn"


def test_the_cap_in_megabytes_holds():
    side = assign(*make(range(1000), sizes=1000), SplitConfig(heldout_mb=0.02))
    assert (side == TEST).sum() == (side == VALIDATION).sum() == 20


def test_too_few_documents_all_train():
    assert assign(*make([1, 2]), SplitConfig()).tolist() == [TRAIN, TRAIN]


def test_no_heldout_text_where_none_is_wanted():
    side = assign(*make(range(50)), SplitConfig(validation=0, test=0))
    assert (side == TRAIN).all()


def test_titles_that_look_alike_are_one():
    assert title_key("Nikola_Tesla") == title_key(" nikola  tesla ") == title_key("Nikola Tesla")
    assert title_key("Tesla") != title_key("Nikola Tesla")
