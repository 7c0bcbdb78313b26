"""Check what `make demo` left behind: a report, every study in it, and no BROKEN by surprise."""

import sys
from pathlib import Path

from surefoot._run.folder import RunFolder
from surefoot.study import study_names

root = Path(sys.argv[1])
problems = [] if (root / "index.html").exists() else [f"{root / 'index.html'} is missing"]
latest = {}
for folder in RunFolder.all(root):
    latest.setdefault(folder.study, folder)
for name in study_names():
    if name not in latest:
        problems.append(f"study {name} left no run")
        continue
    folder = latest[name]
    certificates = folder.certificates()
    problems += [f"{name} {part}: {why}" for part, why in folder.status["problems"].items()]
    problems += [
        f"{name} {f['part']} seed {f['seed']}: {f['error']}" for f in folder.status["failed"]
    ]
    if not certificates:
        problems.append(f"study {name} has no certificate")
    if not (folder.path / "index.html").exists():
        problems.append(f"study {name} has no report page")
    problems += [
        f"{name} {c.part}: {c.name} is {c.verdict}, announced {c.expected or 'nothing'}"
        for c in certificates
        if c.surprise
    ]
    print(
        f"{name}: {len(certificates)} certificates, "
        + ", ".join(sorted({c.verdict for c in certificates}))
    )
print("\n".join(problems) or "the demo is as it should be")
sys.exit(bool(problems))
