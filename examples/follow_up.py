"""Has it grown? Two scans of one person with their masks: python examples/follow_up.py OUT SCAN MASK SCAN MASK

The earlier scan comes first. DICOM series say their dates; give `model=` instead of `masks=` to have lesions found.
"""

import sys

import focalis

out, *files = sys.argv[1:]
followed = focalis.follow(files[::2], out, masks=files[1::2], dates=["2026-01-10", "2026-07-10"])

for track, days in zip(followed.tracks, followed.measured, strict=True):
    for seen, day in zip(track.sightings, days, strict=True):
        size = f"{day.size.volume_mm3:.0f} +- {day.size.volume_sd_mm3:.0f} mm3" if day.size else "not there"
        print(f"lesion {track.number}: {seen.status}, {size}")
print(f"report: {out}/report.html")
