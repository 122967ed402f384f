"""The platform's class, apart from `cpu_platform` because it may only be imported after the assumptions are lifted."""

from __future__ import annotations

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):
    _enum = PlatformEnum.OOT  # capabilities stay at their defaults: no Triton, no graphs

    def get_default_attention_backend(self) -> str:
        return "torch_native"
