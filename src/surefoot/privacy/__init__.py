"""What a privately trained model leaks: proven values, the last-iterate heuristic, and audits, side by side.

Papers: Steinke, Nasr, Ganesh, Balle, Choquette-Choo, Jagielski, Hayes, Thakurta, Smith and Terzis,
"The last iterate advantage", arXiv 2410.06186 (the heuristic); Steinke, Nasr and Jagielski, arXiv 2305.08846
(auditing in one run); Mahloujifar, Melis and Chaudhuri, arXiv 2410.22235 (the same with a trade-off curve).
"""

from lazy_loader import attach_stub

from surefoot._moved import behind_function

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
behind_function(__name__, "calibrate", "gaussian", "last_iterate", "max_steps", "standard")
