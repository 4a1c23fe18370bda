"""The values that focalis.toml may hold: AE titles, networks, keywords, paths beside the file."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from focalis.models import SHIPPED


def _ae_title(value: str) -> str:
    """An AE title: 1 to 16 printable ASCII characters, no backslash, surrounding spaces are ignored (PS3.5 6.2)."""
    value = value.strip(" ")
    if not 1 <= len(value) <= 16 or "\\" in value or not all(32 <= ord(letter) < 127 for letter in value):
        raise ValueError(f"{value!r} is not an AE title: 1 to 16 ASCII characters without backslash")
    return value


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value.strip(), strict=False))
    except ValueError as error:
        raise ValueError(
            f"{value!r} is not an IP address or network such as 10.0.0.7 or 10.0.0.0/24"
        ) from error


def _host(value: str) -> str:
    if not re.fullmatch(r"[^\s/:@]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", value):
        raise ValueError(f"{value!r} is not a host: give its name or IP address alone")
    return value


def _url(value: str) -> str:
    told = "it is not an address such as https://HOST/PATH"
    try:
        found = urlsplit(value)
        whole = found.scheme in ("http", "https") and found.hostname and found.port != 0
    except ValueError:
        raise ValueError(told) from None  # its text may hold a password
    if not whole or re.search(r"\s", value):
        raise ValueError(told)
    return value


def _sha256(value: str) -> str:
    """A hash in lower case; some programs print capitals."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise ValueError("it is not a SHA-256 of 64 hexadecimal digits, as sha256sum prints it")
    return value.lower()


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError(f"{value!r} is not 1 to 64 letters, digits, dots, dashes and underscores")
    return value


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[^\s@<>,]+@[^\s@<>,]+", value):
        raise ValueError(f"{value!r} is not an address such as imaging@hospital.example")
    return value


def _password_hash(value: str) -> str:
    if not re.fullmatch(r"scrypt(\$[0-9]+){3}(\$[A-Za-z0-9+/]+=*){2}", value):
        raise ValueError("it is not a password hash; make one with focalis serve --hash-password")
    return value


def _web_address(value: str) -> str:
    """An address of HTTPS; HTTP is for this machine alone."""
    found = urlsplit(value)
    if found.scheme == "https" and found.hostname:
        return value
    if found.scheme == "http" and found.hostname in ("localhost", "127.0.0.1", "::1"):
        return value
    raise ValueError(f"{value!r} is not an address that begins with https://")


def _database_address(value: str) -> str:
    told = "it is not an address such as postgresql://USER@HOST/NAME; write signs in a password as %2F"
    try:
        found = urlsplit(value)
        named = found.hostname and found.path.strip("/") and "@" not in found.path
        whole = found.scheme == "postgresql" and named and found.port != 0
    except ValueError:
        raise ValueError(told) from None  # its text may hold the password
    if not whole:
        raise ValueError(told)
    if "options" in parse_qs(found.query):
        raise ValueError("options of the session are set by the device; leave them out of the address")
    return value


def _objects_address(value: str) -> str:
    if not re.fullmatch(r"s3://[A-Za-z0-9][A-Za-z0-9.-]*(/[^@?#]*)?", value):
        raise ValueError(
            "it is not an address such as s3://BUCKET/PREFIX; credentials come from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and a share is store.folder itself"
        )
    return value


def _beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """A path in focalis.toml is relative to the folder of that file."""
    folder = (info.context or {}).get("folder")
    return value if folder is None else folder / value.expanduser()


def _model_beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """The path of a model file, or the name of a model that comes with Focalis, which stays as it is."""
    path = _beside_the_file(value, info)
    return value if str(value) in SHIPPED and not path.is_file() else path


def _keyword(value: str) -> str:
    """A DICOM keyword that does not name the patient: the store keeps what routes ask for."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(value)
    if tag is None:
        raise ValueError(f"{value!r} is not a DICOM keyword, such as SliceThickness")
    if value in _OF_A_PERSON or dictionary_VR(tag) not in _PLAIN:
        raise ValueError(f"{value} names a person, or holds no plain value; routes ask for other attributes")
    return value


def _charset(value: str) -> str:
    from focalis.charsets import codec_of

    return codec_of(value)


_PLAIN = (
    "AE",
    "AS",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "FL",
    "IS",
    "LO",
    "SH",
    "SL",
    "SS",
    "ST",
    "TM",
    "UI",
    "UL",
    "US",
)
_OF_A_PERSON = (
    "PatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
)
Keyword = Annotated[str, AfterValidator(_keyword)]
AeTitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
PasswordHash = Annotated[str, AfterValidator(_password_hash)]
FilePath = Annotated[Path, AfterValidator(_beside_the_file)]
Name = Annotated[str, AfterValidator(_name)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
Host = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, AfterValidator(_url)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
ObjectsAddress = Annotated[str, AfterValidator(_objects_address)]
DatabaseAddress = Annotated[str, AfterValidator(_database_address)]
Port = Annotated[int, Field(ge=0, le=65535)]
PeerPort = Annotated[int, Field(ge=1, le=65535)]
ModelPath = Annotated[Path, AfterValidator(_model_beside_the_file)]
Charset = Annotated[str, AfterValidator(_charset)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
