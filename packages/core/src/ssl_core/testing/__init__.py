"""A contract test kit: what every method must do in every domain.

from ssl_core.testing import Contract, MethodCase
contract = Contract(MY_DOMAIN, [MethodCase("simclr", views={...}, encoder={...}), ...], folder)
for case in contract.cases: contract.check(case)
"""

from ssl_core.testing.contract import CHECKS, Contract, MethodCase, options_of
from ssl_core.testing.small import paired_cases

__all__ = ["CHECKS", "Contract", "MethodCase", "options_of", "paired_cases"]
