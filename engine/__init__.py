"""The engine sees a video, reasons about it and answers. It knows nothing of Gradio, SQLite or training."""

import os

# Nothing calls the network unless the user asked for it; both libraries read these when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
