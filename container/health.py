"""Whether the device answers: exit code 0, or 1 with the reason. `python health.py http://127.0.0.1:8080/healthz`."""

import sys
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        print(answer.read().decode())
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
