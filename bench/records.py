"""Published records that the measurements are set beside.

Utilisation is multiply-accumulates a cycle over the multipliers in use, two products to a DSP where
8 bits allow it.  Numbers are those of the works' own tables; "claimed" ones come without a table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One work: what it reached, with which model."""

    work: str
    source: str
    model: str
    #: Share of the products that the DSPs in use could have done.
    utilisation: float
    claimed: bool = False


#: Batch 1, 8 bits, end to end.
RECORDS = (
    Record("Huang et al., TCAS-I 2023", "Table 7 of arXiv 2411.03697", "ViT-T", 0.405),
    Record("Auto-ViT-Acc, fixed point, clock assumed", "tables of arXiv 2405.19915", "DeiT-S",
           0.61),
    Record("ViTA", "abstract of arXiv 2302.09108", "ViT, DeiT, Swin", 0.90, claimed=True),
    Record("EfficientViT accelerator", "arXiv 2403.20230", "EfficientViT", 0.952),
)

#: Huang et al.: ViT-T at 245.3 images a second and 300 MHz, with 1268 DSPs.
VIT_TINY_CYCLES = 300e6 / 245.3
VIT_TINY_WORK = "Huang et al., 1268 DSPs"
