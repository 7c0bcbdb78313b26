from .adapters import attach as attach
from .adapters import export_adapter as export_adapter
from .loading import load_gguf as load_gguf
