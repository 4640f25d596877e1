# SPDX-License-Identifier: Apache-2.0
# Writes tests/golden/safetensors/: a file by the reference library, with every dtype that the
# framework reads and one that it does not. Made with safetensors 0.8.0, torch 2.15.0.
#   python tests/golden/make_safetensors_golden.py
import pathlib

import torch
from safetensors.torch import save_file

out = pathlib.Path(__file__).parent / "safetensors"
out.mkdir(exist_ok=True)
ramp = torch.arange(6, dtype=torch.float64).reshape(2, 3) / 4 - 0.5
tensors = {name: ramp.to(dtype) for name, dtype in [
    ("f64", torch.float64), ("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)]}
tensors["i64"] = torch.tensor([-(2**62), 0, 2**62])
tensors["i32"] = torch.tensor([[-5], [7]], dtype=torch.int32)
tensors["u8"] = torch.tensor([0, 128, 255], dtype=torch.uint8)
tensors["bool"] = torch.tensor([True, False, True])
tensors["scalar"] = torch.tensor(1.5)
tensors["empty"] = torch.zeros(0, 4)
save_file(tensors, out / "reference.safetensors", metadata={"format": "pt", "note": "caf\u00e9"})
