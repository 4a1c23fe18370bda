"""The public data sets that are known by name.

A set stands here if its address, its checksum and its licence are established, and if `open_dataset` opens it as
it is unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from focalis.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class PublicSet:
    """One public data set.

    Attributes:
        name: its name; the archive holds the set in a folder of this name, and so does the disk afterwards.
        aliases: other names, under which a local copy may lie as well.
        title: what it shows, in a few words.
        url: the archive: .tar, .tar.gz, .tgz or .zip.
        checksum: of the archive, "md5:..." or "sha256:...", hexadecimal.
        megabytes: size of the archive in 10^6 bytes, rounded.
        licence: the licence's short name.
        channels: the images' channels, in order.
        labels: label value to name, without the background 0.
        layout: the folders and files in it.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    url: str
    checksum: str
    megabytes: int
    licence: str
    licence_url: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    cases: int
    layout: str
    citation: str


def public_set(name: str) -> PublicSet:
    """The set of that name or alias.

    Raises:
        UsageError: no set is called so.
    """
    for known in PUBLIC_SETS:
        if name in (known.name, *known.aliases):
            return known
    names = ", ".join(known.name for known in PUBLIC_SETS)
    aliases = [alias for known in PUBLIC_SETS for alias in (known.name, *known.aliases)]
    raise UsageError.at(
        name,
        "is not a public data set that is known here",
        f"take one of {names}{did_you_mean(name, aliases)}",
    )


def _decathlon(
    name: str, title: str, md5: str, megabytes: int, cases: int, channels: str, *labels: str
) -> PublicSet:
    """A task of the Medical Segmentation Decathlon.

    Checksums are those that MONAI checks its downloads of these archives by (monai/apps/datasets.py). Channels,
    labels and numbers of cases are those of each task's dataset.json, the licence is the one named there and on
    medicaldecathlon.com.
    """
    return PublicSet(
        name=name,
        aliases=(f"msd_{name.partition('_')[2].lower()}",),
        title=title,
        url=f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{name}.tar",
        checksum=f"md5:{md5}",
        megabytes=megabytes,
        licence="CC BY-SA 4.0",
        licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
        channels=tuple(channels.split()),
        labels=dict(enumerate(labels, start=1)),
        cases=cases,
        layout="imagesTr/, labelsTr/, imagesTs/ (images without labels), dataset.json; NIfTI",
        citation=(
            "Antonelli et al., The Medical Segmentation Decathlon, Nat Commun 13:4128 (2022), "
            "doi:10.1038/s41467-022-30695-9; Simpson et al., arXiv:1902.09063"
        ),
    )


PUBLIC_SETS = (
    _decathlon(
        "Task01_BrainTumour",
        "gliomas in MR, four channels",
        "240a19d752f0d9e9101544901065d872",
        7600,
        484,
        "FLAIR T1w T1gd T2w",
        "edema",
        "non-enhancing tumor",
        "enhancing tumour",
    ),
    _decathlon(
        "Task02_Heart", "left atrium in MR", "06ee59366e1e5124267b774dbd654057", 450, 20, "MRI", "left atrium"
    ),
    _decathlon(
        "Task03_Liver",
        "liver and its tumours in CT",
        "a90ec6c4aa7f6a3d087205e23d4e6397",
        29000,
        131,
        "CT",
        "liver",
        "cancer",
    ),
    _decathlon(
        "Task04_Hippocampus",
        "hippocampus in MR, two parts",
        "9d24dba78a72977dbd1d2e110310f31b",
        28,
        260,
        "MRI",
        "Anterior",
        "Posterior",
    ),
    _decathlon(
        "Task05_Prostate",
        "zones of the prostate in MR, two channels",
        "35138f08b1efaef89d7424d2bcc928db",
        240,
        32,
        "T2 ADC",
        "PZ",
        "TZ",
    ),
    _decathlon(
        "Task06_Lung", "lung tumours in CT", "8afd997733c7fc0432f71255ba4e52dc", 9000, 63, "CT", "cancer"
    ),
    _decathlon(
        "Task07_Pancreas",
        "pancreas and its tumours in CT",
        "4f7080cfca169fa8066d17ce6eb061e4",
        12000,
        281,
        "CT",
        "pancreas",
        "cancer",
    ),
    _decathlon(
        "Task08_HepaticVessel",
        "liver vessels and tumours in CT",
        "641d79e80ec66453921d997fbf12a29c",
        9000,
        303,
        "CT",
        "Vessel",
        "Tumour",
    ),
    _decathlon("Task09_Spleen", "spleen in CT", "410d4a301da4e5b2f6f86ec3ddba524e", 1600, 41, "CT", "spleen"),
    _decathlon(
        "Task10_Colon",
        "colon cancer in CT",
        "bad7a188931dc2f6acf72b08eb6202d0",
        6200,
        126,
        "CT",
        "colon cancer primaries",
    ),
)
