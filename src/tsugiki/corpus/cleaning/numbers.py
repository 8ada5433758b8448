"""Check digits and issuers: what tells a card number or a My Number from any other run of digits."""

from __future__ import annotations

import re

_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa: 13, 16 or 19 digits
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard: 16
    r"|3[47]\d{13}"  # American Express: 15
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB: 16 to 19
    r"|3(?:0[0-5]|[689]\d)\d{11,16}"  # Diners Club: 14 to 19
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}"  # Discover: 16 to 19
    r"|62\d{14,17}"  # UnionPay: 16 to 19
)
"""Issuer numbers and lengths after ISO/IEC 7812-1, as the networks publish them."""

_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes((*(2 * value - 9 * (value > 4) for value in range(10)), *range(10, 256)))  # noqa: PLR2004
_EAN_DIGITS = 13
_MY_NUMBER_DIGITS = 12


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812-1, annex B: every second digit doubled."""
    values = digits.encode().translate(_VALUES)
    return (sum(values[::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether digits are a payment card's: an issuer's number and length, and Luhn's check digit.

    13 digits that are a valid article number (EAN, JAN: a Japanese one begins with 4, like a Visa card) are
    no card.
    """
    if not _ISSUERS.fullmatch(digits) or not luhn(digits):
        return False
    return len(digits) != _EAN_DIGITS or not _is_article(digits)


def _is_article(digits: str) -> bool:
    """The check digit of EAN-13 (GS1 General Specifications §7.9): weights 1, 3, 1, 3, ..."""
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10 == 0


def is_my_number(digits: str) -> bool:
    """Whether 12 digits are an individual's My Number by their check digit.

    平成26年総務省令第85号 第5条 (e-Gov 426M60000008085, quoted at
    mynumber.okinawa-spot.com/core/archives/227): 11 − (Σ Pn·Qn mod 11), n = 1..11, where Pn is the n-th
    digit from the right of the eleven before the check digit, Qn = n + 1 for n ≤ 6 and n − 5 above; 0 if the
    remainder is 0 or 1. Others call these valid: 123456789018 (PyPI JPMyNumber), 548836529885 (npm
    mynumber), 465281266333 (the gem tsubaki).
    (Corporate numbers have 13 digits and are published; they are no personal data.)
    """
    if len(digits) != _MY_NUMBER_DIGITS:
        return False
    weights = (2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6)
    total = sum(int(digit) * weight for digit, weight in zip(reversed(digits[:-1]), weights, strict=True))
    remainder = total % 11
    return int(digits[-1]) == (0 if remainder <= 1 else 11 - remainder)


CHECKS = {"": lambda _digits: True, "my_number": is_my_number}
"""The checks that a language pack can name."""
