"""Random sequences of operations: disciplined ones, whose memory contents can be followed, and wild ones."""

import numpy as np

from hosts.address_generator import Case
from hw.rlkv.layouts import OperationLayout
from spec.rlkv import RlkvConfig, RlkvPools
from spec.rlkv_transfers import RlkvOp

__all__ = ["disciplined", "random_masks", "wild"]

ACTIONS = {"open": 6, "close": 2, "extend": 16, "write": 17, "read": 26, "pack": 5, "page": 17, "junk": 10, "policy": 1}


def random_masks(config: RlkvConfig, rng: np.random.Generator) -> list[int]:
    """A policy with some all-full and all-window layers."""
    everything = (1 << config.heads) - 1
    kinds = rng.choice(3, config.layers, p=[0.2, 0.2, 0.6])
    return [(everything, 0, int(rng.integers(0, everything + 1)))[kind] for kind in kinds]


def disciplined(config: RlkvConfig, pools: RlkvPools, rng: np.random.Generator, *, steps: int, masks=None) -> Case:
    """Prefill, then decoding steps of several requests as they should be: extend, pack what is due, write, read."""
    case = Case(config, pools)
    case.policy(random_masks(config, rng) if masks is None else masks)
    for _ in range(steps):
        request = int(rng.integers(config.requests))
        sequence = case.model.sequences.get(request)
        if sequence is None:
            case.do(RlkvOp.OPEN, request=request)
            count = int(rng.integers(1, 3 * config.block_tokens + config.residual))
        elif sequence.tokens > config.context * 3 // 4 or rng.random() < 0.03:
            case.do(RlkvOp.CLOSE, request=request)
            continue
        else:
            count = int(rng.choice([1, 2, 5, config.block_tokens], p=[0.85, 0.05, 0.05, 0.05]))
        case.do(RlkvOp.EXTEND, request=request, count=count)
        case.pack_all(request)
        case.every_layer(RlkvOp.WRITE, request)
        case.every_layer(RlkvOp.READ, request, per_query=int(rng.random() < 0.3))
    return case


def wild(config: RlkvConfig, pools: RlkvPools, rng: np.random.Generator, *, steps: int) -> Case:
    """Anything in any order: good operations, omitted ones, and fields of every value that their width allows."""
    case = Case(config, pools)
    widths = {name: field.width for name, field in OperationLayout(config)}
    case.policy(random_masks(config, rng))
    weights = np.array(list(ACTIONS.values())) / sum(ACTIONS.values())
    for action in rng.choice(list(ACTIONS), steps, p=weights):
        request, layer = int(rng.integers(config.requests)), int(rng.integers(config.layers))
        head, part = int(rng.integers(config.heads)), int(rng.integers(2))
        heads = {"head": head, "last_head": int(rng.integers(head, config.heads))}
        where = {"request": request, "layer": layer, "part": part}
        if action in ("open", "close"):
            case.do(RlkvOp[action.upper()], request=request)
        elif action == "extend":
            few = rng.random() < 0.8
            count = int(rng.integers(0, 4 if few else config.block_tokens + config.residual))
            case.do(RlkvOp.EXTEND, request=request, count=count)
        elif action in ("write", "read"):
            case.do(RlkvOp[action.upper()], **where, **heads, per_query=int(rng.integers(2)))
        elif action == "pack":
            sizes = {
                "count": int(rng.integers(config.block_tokens + 2)),
                "beats": int(rng.integers(config.block_beats + 2)),
            }
            case.do(RlkvOp.PACK, **where, head=head, last_head=head, **sizes)
        elif action == "page":
            if request in case.model.sequences and case.model.is_full(layer, head):
                beats = int(rng.integers(1, config.block_beats + 1))
                for either in (part, 1 - part):
                    case.pack_due(request, layer, head, either, beats)
        elif action == "policy":
            if rng.random() < 0.5:
                for open_request in list(case.model.sequences):
                    case.do(RlkvOp.CLOSE, request=open_request)
            masks = random_masks(config, rng)
            if rng.random() < 0.3:
                case.policy((masks + masks)[: int(rng.integers(1, 2 * len(masks) + 1))])
            case.policy(masks)
        else:
            junk = {name: int(rng.integers(1 << width)) for name, width in widths.items()}
            case.do(**(junk | where if rng.random() < 0.5 else junk))
    return case
