"""Runs the Python examples of a README, in order and in one namespace, with the package that is installed.

That must have the compiled solver.

python readme_examples.py README.md
"""

import re
import sys
import time
from pathlib import Path

began = time.perf_counter()
text = Path(sys.argv[1]).read_text(encoding="utf-8")
blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
if not blocks:
    sys.exit(f"{sys.argv[1]} has no examples")
names: dict[str, object] = {"__name__": "readme"}
for block in blocks:
    exec(compile(block, sys.argv[1], "exec"), names)

import gumbel_moe  # noqa: E402

place = Path(gumbel_moe.__file__).parent
took = time.perf_counter() - began
if not gumbel_moe.compiled_solver_available():
    sys.exit(f"the compiled solver is missing, or does not fit the JAX that is installed: {place}")
print(f"{len(blocks)} examples ran in {took:.0f} s, with the compiled solver: {gumbel_moe.__version__} in {place}")
