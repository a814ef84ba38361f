"""The short proofs, and that they find faults; ``python -m tests.formal`` has the long ones."""

from __future__ import annotations

import pytest

from tests.formal.proofs import PROOFS
from tests.formal.prove import RefutedError

QUICK = [name for name, proof in PROOFS.items() if proof.quick]


@pytest.mark.parametrize("name", QUICK)
def test_holds(name):
    PROOFS[name].prove(PROOFS[name].quick)


@pytest.mark.parametrize("name", ["skid", "splitter"])
def test_a_fault_is_found(name):
    proof = PROOFS[name]
    with pytest.raises(RefutedError, match="model found for base case: FAIL"):
        proof.prove(proof.quick, proof.faults[0])
