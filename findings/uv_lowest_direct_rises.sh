#!/usr/bin/env bash
# uv 0.12.24, --resolution lowest-direct: of two direct requirements whose lowest versions exclude each other it raises one, and says
# nothing. trackio 0.40 wants huggingface-hub >= 1.10, transformers below 5 wants < 1.0: `transformers>=4.56` comes out as 5.0.0 beside
# `trackio>=0.40`, with exit code 0 and no warning. A CI job "lowest versions" then tests none of the 4.x that are declared, from the day on
# which somebody adds an unrelated requirement. One would guess an error or a warning, as "lowest" was asked for and cannot be had; compare
# what was installed with what is declared.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uv==0.12.24
cd "$place"
lowest() {
  printf '%s\n' "$@" > wanted.in
  venv/bin/uv pip compile --quiet --only-binary :all: --python-version 3.11 --resolution lowest-direct wanted.in > got.txt 2> said.txt
  grep -E '^(transformers|trackio)==' got.txt | tr '\n' ' '
  if [ -s said.txt ]; then echo "and said: $(head -3 said.txt)"; else echo "without a word"; fi
}
alone=$(lowest 'transformers>=4.56,<6')
both=$(lowest 'transformers>=4.56,<6' 'trackio>=0.40,<0.44')
echo "transformers alone: $alone"
echo "beside trackio:     $both"
[[ $alone == 'transformers==4.56.0 without a word' ]] || { echo changed; exit 1; }
[[ $both == *'transformers==5.0.0 without a word' ]] || { echo changed; exit 1; }
