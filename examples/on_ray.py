"""Predict many scans on a Ray cluster: python examples/on_ray.py MODEL SCANS OUT

Without a cluster Ray starts on this machine. After whatever stopped it, the same call goes on with what is left.
"""

import sys

from focalis.workflows.predict_on import predict_on

model, scans, out = sys.argv[1:]
report, _ = predict_on(
    "ray",
    model,
    [scans],
    out,
    threads=1,
    memory_gb=2.0,
    device="cpu",
    tell=lambda part, _progress: print(f"{part} begins"),
)
for row in report.rows:
    print(f"{row.case}: {row.reason or f'{row.lesions} lesions'}")
