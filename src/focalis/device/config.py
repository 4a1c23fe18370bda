"""The settings of the device: focalis.toml, one frozen object, every value with a default."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationError

from focalis.device.config_values import (
    AeTitle,
    Charset,
    DatabaseAddress,
    FilePath,
    Host,
    Keyword,
    MailAddress,
    ModelPath,
    Name,
    Network,
    ObjectsAddress,
    PasswordHash,
    PeerPort,
    Port,
    Sha256,
    Url,
    WebAddress,
)
from focalis.device.records import Role
from focalis.errors import UsageError
from focalis.settings import Frozen, first_fault

OutsidePolicy = Literal["mark", "hold", "refuse"]
ObjectKind = Literal["seg", "rtstruct", "sr", "capture", "images"]
Dates = Literal["remove", "shift", "keep"]
_LONGEST_DAYS = 36_500
_TLS_FILES = ("tls_ca", "tls_certificate", "tls_key")
_OF_A_KIND = {
    "dicom": ("ae_title", "host", "port", "tls", "commit"),
    "stow": ("url", "token"),
    "webhook": ("url", "secret"),
    "email": ("host", "port", "tls", "user", "password", "sender", "to"),
}
"""The keys of a destination or recipient that have no meaning for the other kind."""


class Section(Frozen):
    """A table of focalis.toml; its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class NodeSettings(Section):
    """The DICOM node.

    Attributes:
        host: the address to listen on; port 0 takes a free one.
        tls_certificate, tls_key: PEM files of the node; both or neither. With them every connection is TLS.
        tls_ca: PEM file of the authorities whose certificates peers must show; without it peers show none.
        max_pdu: the greatest PDU that is accepted, in bytes (PS3.8 D.1).
        handshake_seconds: time for TLS and the association request together.
        idle_seconds: an association is aborted if either side keeps the other waiting so long.
        connections_per_address: connections from one address at a time.
        connections: connections at a time from everywhere.
        quiet_seconds: a series is complete when no association that sent it is open and nothing came so long.
        release_after_hours: an incomplete series is segmented all the same after so long, its results marked as
            partial; by default it waits for a person.
        charset: how to decode text of an image's header that is not UTF-8 and has no or a wrong character set;
            named as in DICOM (ISO_IR 144) or in Python.
    """

    ae_title: AeTitle = "FOCALIS"
    host: str = "127.0.0.1"
    port: Port = 11112
    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    tls_ca: FilePath | None = None
    max_pdu: int = Field(default=131072, ge=4096, le=16_777_216)
    handshake_seconds: float = Field(default=10, gt=0)
    idle_seconds: float = Field(default=60, gt=0)
    connections_per_address: int = Field(default=8, ge=1)
    connections: int = Field(default=64, ge=1)
    quiet_seconds: float = Field(default=10, ge=0, le=86_400)
    release_after_hours: float | None = Field(default=None, ge=0, le=24 * _LONGEST_DAYS)
    charset: Charset = "latin-1"


class Peer(Section):
    """Who may send: a calling AE title from these addresses. Loopback is always allowed."""

    ae_title: AeTitle
    addresses: tuple[Network, ...] = Field(min_length=1)


class ModelEntry(Section):
    """A model file, or one that comes with Focalis, under a name; `sha256`, if given, is checked before it is used."""

    name: Name
    file: ModelPath
    sha256: Sha256 | None = None


class Condition(Section):
    """What an attribute of a series must be.

    Attributes:
        tag: its keyword (SliceThickness); of several values, also over the images, one must fit a pattern, and all must
            lie in a range.
        value: a pattern, as of routes.
        min, max: the range of a number, both ends included.
        unless: the route takes the series only if this does not hold.
    """

    tag: Keyword
    value: str | None = None
    min: float | None = None
    max: float | None = None
    unless: bool = False


class Route(Section):
    """Which series a model takes. All given patterns must match (`*`, `?`; case is ignored).

    Attributes:
        model: the model, or several, each with results of its own.
        shadow: a model on trial, which segments the same series; its results are kept beside, and not sent.
        points: a guided model, which segments a lesion that the others have missed where a reviewer clicks.
        sequence: of several, each is begun only if the one before it has found something; else all are, in their order.
        outside: what becomes of a series that lies outside of what the model was trained on: "mark" segments it and
            marks the results, "hold" waits for a person, "refuse" refuses it. By default one of another modality is
            refused, and others are marked.
        follow_up: compare with an earlier study of the same person that this route took.
        where: more conditions, all of which must hold.
        urgent: its series are segmented before others.
        leave_out: leave out images of another orientation or size than nearly all others, such as localizers.
    """

    model: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    shadow: Name | None = None
    points: Name | None = None
    sequence: bool = False
    modality: str | None = None
    body_part: str | None = None
    description: str | None = None
    outside: OutsidePolicy | None = None
    follow_up: bool = True
    where: tuple[Condition, ...] = ()
    urgent: bool = False
    leave_out: bool = True

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in their order, each once."""
        return (self.model,) if isinstance(self.model, str) else tuple(dict.fromkeys(self.model))

    @property
    def takes_all(self) -> bool:
        """Whether no series is left to later routes."""
        return not self.where and (self.modality, self.body_part, self.description) == (None, None, None)


class Destination(Section):
    """Where results go.

    Attributes:
        kind: "dicom" by C-STORE to `ae_title` at `host`:`port`; "stow" by STOW-RS to `url`.
        token: sent as bearer token to `url`.
        tls: speak TLS to `host`; `tls_ca` names who is trusted instead of the system's authorities.
        tls_certificate, tls_key: what the device shows to a destination that asks for a certificate.
        objects: which results are sent; "images" are those that were segmented.
        commit: ask it by storage commitment to keep them; its report comes to the device's node.
        deidentify: send copies that are de-identified by the basic profile of PS3.15, and nothing else.
        dates: what becomes of their dates: removed, shifted by some days for each patient, or kept.
    """

    name: Name
    kind: Literal["dicom", "stow"] = "dicom"
    ae_title: AeTitle | None = None
    host: Host | None = None
    port: PeerPort | None = None
    url: Url | None = None
    token: str | None = Field(default=None, repr=False)
    tls: bool = False
    tls_ca: FilePath | None = None
    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    objects: tuple[ObjectKind, ...] = ("seg", "rtstruct", "sr", "capture")
    commit: bool = False
    deidentify: bool = False
    dates: Dates = "remove"


class Recipient(Section):
    """Who is told what happens.

    Attributes:
        kind: "webhook" posts JSON to `url`, signed with `secret`; "email" sends mail to `to` by the server `host`.
        events: "person": a study needs a person; "dead": results could not be sent; "disk": the disk is full; "done": a
            study was segmented.
        patients: tell the patient's name and ID as well.
        page: the address of the device's page, for links.
        tls: how the mail server is spoken to; `tls_ca` names who is trusted instead of the system's authorities.
    """

    name: Name
    kind: Literal["webhook", "email"] = "webhook"
    events: tuple[Literal["person", "dead", "disk", "done"], ...] = ("person", "dead", "disk")
    patients: bool = False
    page: Url | None = None
    url: Url | None = None
    secret: str | None = Field(default=None, repr=False, min_length=16)
    host: Host | None = None
    port: PeerPort | None = None
    tls: Literal["none", "starttls", "tls"] = "starttls"
    tls_ca: FilePath | None = None
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    sender: MailAddress | None = None
    to: tuple[MailAddress, ...] = ()


class WebSettings(Section):
    """The web page and DICOMweb; with certificate and key it is HTTPS.

    Attributes:
        https_proxies: addresses of HTTPS proxies in front of the page. Only theirs are the X-Forwarded-For and
            X-Forwarded-Proto that are believed; browsers are then told to keep to HTTPS.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    tls_certificate: FilePath | None = None
    tls_key: FilePath | None = None
    https_proxies: tuple[Network, ...] = ()

    @property
    def https(self) -> bool:
        """Whether browsers reach the page by HTTPS."""
        return self.tls_certificate is not None or bool(self.https_proxies)


class User(Section):
    """Who may look (viewer), judge (reviewer) or change (admin); the password as `focalis serve` hashes it."""

    name: Name
    password_hash: PasswordHash = Field(repr=False)
    role: Role = "viewer"


class OidcSettings(Section):
    """Who logs people in for the device, by OpenID Connect.

    Attributes:
        name: what people call it; stands on the login page and in the audit trail.
        issuer: its address, exactly as it names itself.
        client_id: the device's name there.
        client_secret_file: holds the device's secret there, and nothing else.
        public_address: the device's page as browsers reach it; what they are sent back to is below it.
        user_claim: the claim of the ID token that is the user's name; nobody may choose it for themselves there.
        roles_claim: the claim that tells what the user is; one in another with dots between ("realm_access.roles").
        roles: the device's roles, to the values of that claim that give them; the highest counts.
        scopes: what is asked for.
        tls_ca: who is trusted instead of the system's authorities.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,23}$")] = "single sign-on"
    issuer: WebAddress
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: FilePath
    public_address: WebAddress
    user_claim: str = "preferred_username"
    roles_claim: str = "groups"
    roles: Annotated[dict[Role, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)]
    scopes: tuple[str, ...] = ("openid", "profile")
    tls_ca: FilePath | None = None


class Token(Section):
    """A program that may use DICOMweb: the SHA-256 of its bearer token; `read` lets it query and fetch as well."""

    name: Name
    sha256: Sha256
    read: bool = False


class WatchSettings(Section):
    """A folder whose DICOM files are taken in; they stay where they are."""

    folder: FilePath | None = None
    seconds: float = Field(default=5, gt=0)


class StoreSettings(Section):
    """Where studies and results are kept, for how long, and how much of the disk is left to others.

    Attributes:
        database: the PostgreSQL database of the rows and the jobs, which several processes may share; by default they
            are in SQLite files in `folder`.
        objects: the address `s3://BUCKET/PREFIX` of the received objects and the results; by default they are files in
            `folder`. With it `folder` holds copies, and what is in the making, of one machine.
        cache_gb: what these copies may take; what is in use may exceed it for a while.
    """

    folder: FilePath = Path("focalis-device")
    database: DatabaseAddress | None = Field(default=None, repr=False)
    objects: ObjectsAddress | None = None
    cache_gb: float = Field(default=20, ge=0)
    retain_days: float = Field(default=30, gt=0, le=_LONGEST_DAYS)
    least_free_gb: float = Field(default=5, ge=0)


class Limits(Section):
    """What one study may cost; gb and mb are 10^9 and 10^6 bytes."""

    instance_mb: float = Field(default=512, gt=0)
    series_gb: float = Field(default=4, gt=0)
    parse_seconds: float = Field(default=20, gt=0)
    parse_memory_mb: float = Field(default=2048, ge=256)
    segment_minutes: float = Field(default=30, gt=0)
    segment_memory_gb: float = Field(default=6, gt=0)


class RetrainSettings(Section):
    """What a retraining from the page may cost.

    Attributes:
        minutes: how long it trains.
        hours: how long the whole job may take.
        least_held_out: patients whose corrections are held out, without whom no new model is put on trial.
    """

    minutes: float = Field(default=60, gt=0)
    hours: float = Field(default=12, gt=0)
    memory_gb: float = Field(default=6, gt=0)
    threads: int = Field(default=1, ge=1)
    least_held_out: int = Field(default=5, ge=2)


class Config(Section):
    """Everything that focalis.toml says, or its defaults."""

    node: NodeSettings = NodeSettings()
    peers: tuple[Peer, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    routes: tuple[Route, ...] = ()
    destinations: tuple[Destination, ...] = ()
    notify: tuple[Recipient, ...] = ()
    web: WebSettings = WebSettings()
    users: tuple[User, ...] = ()
    oidc: OidcSettings | None = None
    tokens: tuple[Token, ...] = ()
    watch: WatchSettings = WatchSettings()
    store: StoreSettings = StoreSettings()
    limits: Limits = Limits()
    retrain: RetrainSettings = RetrainSettings()


def load_config(path: Path | None = None) -> Config:
    """The settings in `path`, or the defaults for None. Paths in the file, and the store's default, are meant from its
    folder.

    Models that routes name but the file does not are left to the caller, who knows the command line.

    Raises:
        UsageError: the file is missing, no TOML, has an unknown key, a wrong value, or parts that do not fit.
    """
    if path is None:
        return Config()
    try:
        with UsageError.of_system(path, "check the path"):
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError.at(path, f"is not TOML ({error})", "correct it") from error
    store = values.setdefault("store", {})
    if isinstance(store, dict):  # the same file means the same store, wherever the command is given
        store.setdefault("folder", str(StoreSettings().folder))
    try:
        config = Config.model_validate(values, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise UsageError.at(path, _first_fault(error)) from error
    if fault := _contradiction(config):
        raise UsageError.at(path, fault)
    return config


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = fault["loc"]
    if fault["type"] != "extra_forbidden":  # what is no name tells which type of several was tried
        place = tuple(takewhile(lambda part: isinstance(part, int) or part.isidentifier(), place))
    named = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    if fault["type"] == "extra_forbidden":
        return f"{named} is not a setting; correct or remove it"
    if fault["type"] == "missing":
        return f"{named} is missing; add it"
    words = first_fault(error)[1]
    if fault["type"] == "tuple_type":
        words = "it is a list: write [ ] around it" if len(place) > 1 else f"write [[{named}]]"
    elif fault["type"] == "model_type":
        words = f"write [{named}]" if len(place) == 1 else "it is a table: write { } around it"
    return f"{named} is wrong ({words}); correct it"


def _contradiction(config: Config) -> str | None:
    """What is wrong with settings that are each valid but contradict each other."""
    pairs: list[tuple[str, NodeSettings | WebSettings | Destination]] = [
        ("node", config.node),
        ("web", config.web),
        *((f"destination {entry.name}", entry) for entry in config.destinations),
    ]
    for where, part in pairs:
        if (part.tls_certificate is None) != (part.tls_key is None):
            return f"{where} needs both tls_certificate and tls_key; add the other one"
    if config.node.tls_ca is not None and config.node.tls_certificate is None:
        return "node.tls_ca asks peers for certificates, which needs tls_certificate and tls_key; add them"
    if config.store.objects is not None and config.store.database is None:
        return (
            "store.objects needs store.database: no backup reaches rows in the folder whose objects are "
            "elsewhere; add a database"
        )
    for kind, entries in (
        ("model", config.models),
        ("destination", config.destinations),
        ("recipient", config.notify),
        ("user", config.users),
        ("token", config.tokens),
    ):
        names = [entry.name for entry in entries]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            return f"{kind} {doubled[0]!r} is there twice; give each its own name"
    faults = [_route_fault(number, config.routes) for number in range(len(config.routes))]
    faults += [_destination_fault(entry) for entry in config.destinations]
    faults += [_recipient_fault(entry) for entry in config.notify]
    if config.oidc is not None and (fault := _oidc_fault(config.oidc, config)):
        faults.append(f"oidc: {fault}")
    return next(filter(None, faults), None)


def _route_fault(number: int, routes: Sequence[Route]) -> str | None:
    route, named = routes[number], f"routes.{number + 1}"
    if route.shadow and (len(route.models) > 1 or route.shadow in route.models):
        return f"{named}: a shadow stands beside one other model; name one model, and another shadow"
    for each in route.where:
        if each.value is None and each.min is None and each.max is None:
            return f"{named}: {each.tag} has no value, min or max; add one"
        if each.min is not None and each.max is not None and each.min > each.max:
            return f"{named}: {each.tag} has a min above its max; exchange them"
    if route.takes_all and number + 1 < len(routes):
        return f"{named} takes every series, so that no later route is used; put it last"
    return None


def _destination_fault(entry: Destination) -> str | None:
    named = f"destination {entry.name}"
    needed = ("ae_title", "host", "port") if entry.kind == "dicom" else ("url",)
    if fault := _kind_fault(entry, "stow" if entry.kind == "dicom" else "dicom", needed):
        return f"{named} ({entry.kind}) {fault}"
    if fault := _tls_fault(entry, entry.tls if entry.kind == "dicom" else _is_https(entry.url)):
        return f"{named}: {fault}"
    if not entry.objects:
        return f"{named}: objects is empty, so that nothing is sent; name some, or remove the destination"
    if entry.deidentify and "capture" in entry.objects:
        return f'{named}: pictures have text burned in; list objects without "capture"'
    if not entry.deidentify and entry.dates != "remove":
        return f"{named}: dates needs deidentify = true; add it"
    return None


def _recipient_fault(entry: Recipient) -> str | None:
    named = f"notify {entry.name}"
    needed = ("url", "secret") if entry.kind == "webhook" else ("host", "sender", "to")
    if fault := _kind_fault(entry, "email" if entry.kind == "webhook" else "webhook", needed):
        return f"{named} ({entry.kind}) {fault}"
    if fault := _tls_fault(entry, entry.tls != "none" if entry.kind == "email" else _is_https(entry.url)):
        return f"{named}: {fault}"
    if (entry.user is None) != (entry.password is None):
        return f"{named} needs both user and password; add the other one"
    if not entry.events:
        return f"{named}: events is empty, so that nothing is told; name some, or remove the recipient"
    return None


def _kind_fault(entry: Destination | Recipient, other: str, needed: Sequence[str]) -> str | None:
    """A key that means nothing for an entry's kind, or one that it lacks."""
    given = [key for key in entry.model_fields_set if getattr(entry, key)]
    if stray := sorted(set(given).intersection(_OF_A_KIND[other]).difference(_OF_A_KIND[entry.kind])):
        return f'has {stray[0]}, which belongs to kind = "{other}"; correct kind, or remove {stray[0]}'
    if missing := [key for key in needed if not getattr(entry, key)]:
        return f"lacks {missing[0]}; add it"
    return None


def _tls_fault(entry: Destination | Recipient, is_secure: bool) -> str | None:
    """Files for TLS where none is spoken: what is sent would be readable, though somebody meant otherwise."""
    given = [key for key in _TLS_FILES if getattr(entry, key, None) is not None]
    if given and not is_secure:
        secure = "tls" if entry.kind in ("dicom", "email") else 'url = "https://..."'
        return f"{given[0]} is there, but nothing would be encrypted; set {secure}, or remove {given[0]}"
    return None


def _is_https(url: str | None) -> bool:
    return url is not None and urlsplit(url).scheme == "https"


def _oidc_fault(oidc: OidcSettings, config: Config) -> str | None:
    if not any(user.role == "admin" for user in config.users):
        return "an administrator must get in without it; add one to [[users]]"
    address = urlsplit(oidc.public_address)
    if address.path.strip("/") or address.query or address.fragment:
        return "public_address is the page's address without a path; remove what follows the host"
    if (address.scheme == "https") != config.web.https:
        return (
            "public_address and [web] disagree about HTTPS; "
            "set web.tls_certificate or web.https_proxies for https://, and only then"
        )
    if "openid" not in oidc.scopes:
        return 'scopes lacks "openid"; add it'
    return None
