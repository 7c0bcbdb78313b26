from .loading import load_gguf as load_gguf
