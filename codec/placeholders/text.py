"""Bytes of a placeholder as text: base64url, of which the first character is a checksum of the others."""

from __future__ import annotations

import base64
import re

from ..errors import DamagedError, VersionError

LARGEST = 64
"""Most bytes of a placeholder."""

CRC_BITS = 6
"""Bits of the checksum, the first character."""

_POLYNOMIAL = 0b000011
"""x^6 + x + 1 without its first term: finds every error within six neighbouring bits, so any character."""


def checksum(number: int, payload: bytes) -> int:
    """Return the CRC of the two bits of the model number and the payload: 6 bits, starting from ones."""
    register = (1 << CRC_BITS) - 1
    bits = format(number, "02b") + "".join(format(byte, "08b") for byte in payload)
    for bit in bits:
        top = (register >> (CRC_BITS - 1)) ^ int(bit)
        register = (register << 1) & ((1 << CRC_BITS) - 1)
        if top:
            register ^= _POLYNOMIAL
    return register


def pack(number: int, payload: bytes) -> str:
    """Return the text of a placeholder.

    Args:
        number: of the model, 0..3.
        payload: bytes of the range coder.
    """
    first = checksum(number, payload) << 2 | number
    return base64.urlsafe_b64encode(bytes([first]) + payload).decode().rstrip("=")


def unpack(text: str) -> tuple[int, bytes]:
    """Return model number and payload of a text.

    Raises:
        DamagedError: no placeholder, or a damaged one.
        VersionError: a model number of a later version.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{2,86}", text, re.ASCII) or len(text) % 4 == 1:
        raise DamagedError("not a placeholder", "2 to 86 characters: letters, digits, - and _")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    number, payload = data[0] & 3, data[1:]
    # Bits that the last character has too many are zero, so that a placeholder has one text.
    if data[0] >> 2 != checksum(number, payload) or pack(number, payload) != text:
        raise DamagedError("damaged placeholder", "copy the text again")
    if number:
        raise VersionError(f"placeholder of model number {number}, unknown here", "upgrade vqcodec")
    return number, payload
