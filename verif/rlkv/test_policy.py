"""Adapter tables, head selection and streaming attention."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from golden.rlkv import (
    AdapterError,
    HeadPolicy,
    full_count,
    load_adapter,
    retained,
    select_full,
    streaming_attention,
    streaming_mask,
)
from spec.rlkv import rlkv_preset
from studies.published_heads import SPARSITIES, TABLES, adapter

FULL_HEADS = {  # typed from the authors' selection
    "llama-3.1-8b-r1": {0.2: 205, 0.4: 154, 0.5: 128, 0.6: 103},
}


@pytest.mark.parametrize("total", [1, 2, 7, 112, 256, 288])
def test_full_count_in_exact_arithmetic(total):
    """Decimal sparsities are meant exactly: the 1e-9 keeps their binary representation from costing a head."""
    for percent in range(100):
        exact = total - math.ceil(Fraction(percent, 100) * (total - 1))
        assert full_count(total, percent / 100) == exact
    assert full_count(total, 0) == total
    assert full_count(total, 1) == 0


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, math.nan, math.inf])
def test_sparsity_outside_its_range(sparsity):
    with pytest.raises(ValueError, match="sparsity must be from 0 to 1"):
        full_count(8, sparsity)


@pytest.mark.parametrize("sparsity", ["0.5", None, True])
def test_sparsity_of_the_wrong_type(sparsity):
    with pytest.raises(TypeError, match="sparsity must be a float or int"):
        select_full(torch.zeros(2, 2), sparsity)


def test_ties_go_to_the_lower_layer_then_head():
    """-0.5 and 0 are equal once clipped, and so are 1 and 1.5."""
    gates = torch.tensor([[0.0, 1.0, -0.5], [1.5, 0.0, 0.3]])
    order = [(0, 1), (1, 0), (1, 2), (0, 0), (0, 2), (1, 1)]
    for count in range(1, 7):
        policy = select_full(gates, (6 - count) / 5 - (count == 1) / 100)
        assert {tuple(place) for place in policy.full.nonzero().tolist()} == set(order[:count])
    assert select_full(gates, 1).n_full == 0


def test_selection_is_the_quantile_of_the_authors(rng):
    """Without ties, the heads at or above np.quantile(gates, s), as they select them."""
    import numpy as np

    gates = rng.permutation(np.linspace(0, 1, 96)).reshape(12, 8)
    for sparsity in (0, 0.2, 0.4, 0.5, 0.6, 0.8):
        theirs = gates >= np.quantile(gates, sparsity) - 1e-12
        assert torch.equal(select_full(torch.from_numpy(gates), sparsity).full, torch.from_numpy(theirs))


@pytest.mark.parametrize("name", TABLES)
def test_published_tables(name):
    gates = adapter(name)
    config = rlkv_preset(TABLES[name])
    masks = []
    for sparsity in SPARSITIES:
        policy = select_full(gates, sparsity)
        policy.check(config)
        masks.append(policy.full)
        if sparsity in FULL_HEADS.get(name, {}):
            assert policy.n_full == FULL_HEADS[name][sparsity]
    for more, less in pairwise(masks):
        assert (more | ~less).all(), "a head that is full at a higher sparsity must be full at a lower one"
    assert masks[0].all()
    assert not masks[-1].any()
    if name.startswith("qwen-3"):
        assert ((gates <= 0).sum(), (gates >= 1).sum()) == (35, 31)
        assert min(select_full(gates, 0.5).full_per_layer) == 0
        assert max(select_full(gates, 0.5).full_per_layer) == 8


def test_policy_table():
    policy = HeadPolicy(torch.tensor([[True, False, True], [False, False, False]]))
    assert (policy.masks(), policy.full_per_layer, policy.n_full, policy.n_window) == ([0b101, 0], [2, 0], 2, 4)
    with pytest.raises(ValueError, match="policy must be for 3 layers x 2 KV heads"):
        policy.check(rlkv_preset("tiny"))
    with pytest.raises(TypeError, match="full must be a bool tensor"):
        HeadPolicy(torch.zeros(2, 2))


def test_selection_refuses_bad_tables():
    with pytest.raises(ValueError, match="adapter must be"):
        select_full(torch.zeros(4), 0.5)
    with pytest.raises(TypeError, match=r"adapter must be a tensor \[layers, heads\] .*not numpy\.ndarray"):
        select_full(np.ones((2, 2)), 0.5)
    with pytest.raises(TypeError, match=r"adapter must be a tensor .*not int64"):
        select_full(torch.ones(2, 2, dtype=torch.int64), 0.5)
    assert select_full(torch.ones(2, 2, requires_grad=True), 0.5).n_full == 2
    with pytest.raises(ValueError, match="adapter must be finite"):
        select_full(torch.tensor([[math.nan, 1.0]]), 0.5)


def test_table_read_back(tmp_path):
    path = tmp_path / "gates.tsv"
    path.write_text("2.5e-01\t-1.0e-03\n1.01e+00\t5.0e-01\n")
    assert load_adapter(path, layers=2, heads=2).tolist() == [[0.25, -0.001], [1.01, 0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1\t2\n1\n", "line 2: must have 2 columns like line 1, not 1"),
        ("1\tx\n", "line 1, column 2: must be a finite number, not 'x'"),
        ("1\tnan\n", "line 1, column 2: must be a finite number, not 'nan'"),
        ("1\t\n", "line 1, column 2: must be a finite number, not ''"),
        ("1\t2\n\n1\t2\n", "line 2, column 1"),
        ("1\t2\n1\t2\n3\t4\n", "must have 2 layers, not 3"),
        ("1\t2\t3\n1\t2\t3\n", "must have 2 heads, not 3"),
        ("\u00bd\t1\n", "line 1, column 1: must be a finite number, not '\u00bd'"),
        ("0_1\t1\n", "line 1, column 1: must be a finite number, not '0_1'"),
        ("1\t1_0.5\n", "line 1, column 2: must be a finite number, not '1_0.5'"),
        ("0,5\t1\n", "line 1, column 1: must be a finite number, not '0,5'"),
        ("0x1p3\t1\n", "line 1, column 1: must be a finite number"),
        ("1\tinfinity\n", "line 1, column 2: must be a finite number"),
        ("1\t1e999\n", "line 1, column 2: must be a finite number"),
        ("\u0661\t1\n", "line 1, column 1: must be a finite number"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "gates.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match=message):
        load_adapter(path, layers=2, heads=2)


def test_tables_of_other_systems(tmp_path):
    """A byte order mark and other ends of lines; another encoding is refused."""
    path = tmp_path / "gates.tsv"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(f"\ufeff0.1\t.9{end}1.\t-1E-2{end}".encode())
        assert load_adapter(path).tolist() == [[0.1, 0.9], [1.0, -0.01]]
    path.write_text("0.1\t0.9\n", encoding="utf-16")
    with pytest.raises(AdapterError, match="cannot read adapter table"):
        load_adapter(path)


def test_no_table(tmp_path):
    with pytest.raises(AdapterError, match=r"cannot read adapter table .*absent\.tsv"):
        load_adapter(tmp_path / "absent.tsv")


def test_streaming_mask_holds_what_is_retained():
    mask = streaming_mask(40, sink=3, recent=5)
    for t in range(40):
        assert mask[t].nonzero().flatten().tolist() == retained(t + 1, sink=3, recent=5)
    with pytest.raises(ValueError, match="recent must be at least 1"):
        streaming_mask(4, sink=1, recent=0)


def test_streaming_attention_against_a_ring(rng):
    """Token by token, window heads keep a ring in slot order: softmax does not mind where a key lies."""
    torch.manual_seed(int(rng.integers(1 << 60)))
    tokens, sink, recent = 50, 4, 7
    q, k, v = torch.randn(6, tokens, 8), torch.randn(2, tokens, 8), torch.randn(2, tokens, 8)
    full = torch.tensor([True, False])
    out = streaming_attention(q, k, v, full, sink=sink, recent=recent, scaling=0.3)
    slots: dict[int, int] = {}
    for t in range(tokens):
        slots[t if t < sink else sink + (t - sink) % recent] = t
        for head in range(6):
            held = list(range(t + 1)) if full[head // 3] else [slots[slot] for slot in sorted(slots)]
            keys, values = k[head // 3, held].double(), v[head // 3, held].double()
            expected = (keys @ q[head, t].double() * 0.3).softmax(0) @ values
            torch.testing.assert_close(out[head, t], expected)
    assert len(slots) == sink + recent


def test_streaming_attention_wants_matching_shapes():
    x = torch.zeros(3, 4, 2)
    with pytest.raises(ValueError, match="full, k and v must agree and divide the 3 query heads, not 2"):
        streaming_attention(x, x[:2], x[:2], torch.ones(2, dtype=torch.bool), sink=1, recent=1, scaling=1.0)
