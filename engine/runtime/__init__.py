"""One interface, several runtimes."""

from engine.runtime.base import Decoding, Message, ModelInfo, Runtime

__all__ = ["Decoding", "Message", "ModelInfo", "Runtime"]
