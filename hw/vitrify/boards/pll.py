"""Clock of an ECP5 from its oscillator: dividers of EHXPLLL.

Limits: Lattice FPGA-DS-02012, "sysCLOCK PLL timing".
"""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.arch.errors import ConfigError

#: Oscillator of the PLL, and least frequency at its phase detector, in MHz.
_VCO_MHZ = (400.0, 800.0)
_PHASE_DETECTOR_MHZ = 3.125
_MAX_DIVISOR = 128


@dataclass(frozen=True)
class Pll:
    """Dividers of input, feedback and output; the feedback comes from the output."""

    input: int
    feedback: int
    output: int
    mhz: float


def dividers(source_mhz: float, wanted_mhz: float) -> Pll:
    """The fastest clock that is not faster than ``wanted_mhz``.

    Raises
    ------
    ConfigError
        If the PLL makes no clock between 90 % of ``wanted_mhz`` and it.
    """
    found = []
    for i in range(1, int(source_mhz / _PHASE_DETECTOR_MHZ) + 1):
        feedback = min(int(wanted_mhz * i / source_mhz + 1e-9), _MAX_DIVISOR)
        mhz = source_mhz * feedback / i
        if feedback == 0 or mhz < 0.9 * wanted_mhz:
            continue
        # The middle of the oscillator's range is the steadiest.
        output = max(1, round(sum(_VCO_MHZ) / 2 / mhz))
        if output <= _MAX_DIVISOR and _VCO_MHZ[0] <= mhz * output <= _VCO_MHZ[1]:
            found.append(Pll(i, feedback, output, mhz))
    if not found:
        raise ConfigError(
            f"a PLL on {source_mhz:g} MHz makes no clock of {wanted_mhz:g} MHz; choose clock_mhz "
            f"from 5 to 400"
        )
    return max(found, key=lambda pll: (pll.mhz, -pll.input))
