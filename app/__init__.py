"""The Gradio front end, thin over the engine and finetune."""
