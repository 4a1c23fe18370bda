"""TLS of the device, from the PEM files that its settings name."""

from __future__ import annotations

import ssl
from pathlib import Path

from focalis.device.config import Config, NodeSettings
from focalis.errors import UsageError


def server_context(settings: NodeSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or later (PS3.15 B.9, BCP 195) of the node, with certificates from peers if authorities are named.

    Raises:
        UsageError: a file cannot be used.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, settings.tls_ca, settings.tls_certificate, settings.tls_key)
    return context


def client_context(
    authorities: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """TLS towards a peer that must show a certificate.

    Args:
        authorities: PEM file of who is trusted instead of the system's authorities.
        certificate, key: PEM files of what the device shows.

    Raises:
        UsageError: a file cannot be used.
    """
    context = ssl.create_default_context() if authorities is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, authorities, certificate, key)
    return context


def check_client_files(config: Config) -> None:
    """Read the files for TLS with destinations, recipients and OpenID provider, of which none is spoken to yet.

    Raises:
        UsageError: one cannot be used; else it would be told when the first result is sent, days later perhaps.
    """
    named = [(each.tls_ca, each.tls_certificate, each.tls_key) for each in config.destinations]
    named += [(each.tls_ca, None, None) for each in (*config.notify, config.oidc) if each]
    for files in filter(any, named):
        client_context(*files)


def _load(
    context: ssl.SSLContext, authorities: Path | None, certificate: Path | None, key: Path | None
) -> None:
    try:
        if certificate is not None:
            # an encrypted key would ask for its pass phrase on a terminal
            context.load_cert_chain(certificate, key, password="")
        if authorities is not None:
            context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (certificate, key, authorities) if path)
        raise UsageError.at(
            names,
            f"cannot be used for TLS ({error})",
            "give PEM files that belong together, and a key without a pass phrase",
        ) from error
