"""Go on from a model with cases of your own: python examples/fine_tuning.py MODEL DATA RUN [STEPS]

The model's weights are taken over; the plan is made for the new data, and a line says where spacing or normalisation
differ. `freeze="encoder"` would keep its encoder as it is.
"""

import sys

import focalis

model_path, data, run, *steps = sys.argv[1:]
result = focalis.fit(data, run, start=model_path, steps=int(steps[0]) if steps else 1000, fold=0)

print(result.start)
print(f"model: {result.model}, report: {result.report}")
