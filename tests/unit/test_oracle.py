"""Every array of the oracle is compared with a function of ours, or left out for a reason that stands here.

The tests themselves are imported from four files, so that they run in one process, before the check of their completeness.
"""

from fnmatch import fnmatchcase

import pytest
from oracle_advantages import *  # noqa: F403
from oracle_arrays import COMPARED, arrays, needs_oracle
from oracle_logprobs import *  # noqa: F403
from oracle_policy import *  # noqa: F403
from oracle_preference import *  # noqa: F403

pytestmark = needs_oracle
IMPORTED = {name for name in globals() if name.startswith("test_")}

NO_SURROGATE = "a surrogate that this project does not offer"
NO_DPO = "a dpo variant that this project does not offer"
LEFT_OUT = {
    "grpo/sapo/*": NO_SURROGATE,
    "grpo/vespo/*": NO_SURROGATE,
    "grpo/luspo/*": NO_SURROGATE,
    "grpo/gmpo_0.4/*": NO_SURROGATE,
    "dpo/exo_pair_*": NO_DPO,
    "dpo/nca_pair_*": NO_DPO,
    "dpo/bco_pair_*": NO_DPO,
    "dpo/sppo_hard_*": NO_DPO,
    "dpo/aot_*": NO_DPO,
    "dpo/apo_*": NO_DPO,
    "dpo/discopop_*": NO_DPO,
    "dpo/*_forward_kl/trl": NO_DPO,
    "dpo/*_js_divergence/trl": NO_DPO,
    "kto/apo_*": NO_DPO,
    "simpo/alphapo_*": NO_DPO,
}


def wanted() -> set[str]:
    return {name for name in arrays() if not name.startswith("in/")}


def matched(pattern: str) -> set[str]:
    return {name for name in wanted() if fnmatchcase(name, pattern)}


def test_every_array_is_compared_or_left_out_for_a_reason(request):
    if IMPORTED - {item.originalname for item in request.session.items if item.path == request.path}:
        pytest.skip("only some of this file's tests run")
    left_out = set().union(*map(matched, LEFT_OUT))
    print(f"{len(COMPARED)} of {len(wanted())} oracle arrays covered; left out:")
    for pattern, reason in LEFT_OUT.items():
        print(f"  {pattern} ({len(matched(pattern))}): {reason}")
    assert not sorted(wanted() - COMPARED - left_out), "neither compared nor left out"
    assert not sorted(COMPARED & left_out), "compared, yet listed as left out"
    assert wanted() >= COMPARED


@pytest.mark.parametrize("pattern", LEFT_OUT)
def test_what_is_left_out_is_there(pattern):
    assert matched(pattern)
