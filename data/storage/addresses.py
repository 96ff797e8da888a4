"""Addresses with secrets: found, and hidden before anything is printed or stored."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

HIDDEN = "***"
# Parts of the names of an address's parameters that give access, as in presigned addresses.
SECRETS = ("signature", "sig", "token", "secret", "password", "credential", "accesskey", "apikey")


def without_secret(address: str) -> str:
    """An address as it may be printed: user, password and signing parameters hidden."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    query = "&".join(
        f"{name}={HIDDEN if _gives_access(name) else value}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{host}" if at else host, query=query))


def has_secret(address: str) -> bool:
    """Whether an address contains a user, a password or a signing parameter."""
    if "://" not in address:
        return False
    parts = urlsplit(address)
    names = (name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return "@" in parts.netloc or any(map(_gives_access, names))


def hide_secret(text: str, address: str) -> str:
    """What someone else says about an address, with the secret of the address hidden."""
    shown = without_secret(address)
    text = text.replace(address, shown)
    netloc = urlsplit(address).netloc
    return text.replace(netloc, urlsplit(shown).netloc) if netloc else text


def _gives_access(name: str) -> bool:
    plain = name.lower().replace("-", "").replace("_", "")
    return any(part in plain for part in SECRETS)
