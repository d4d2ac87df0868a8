#!/usr/bin/env bash
# Make the virtual environment that `make` installs into, or say why not.
#   tools/make_venv.sh PYTHON VERSION VENV    VERSION is PYTHON's, empty if it cannot be run
set -euo pipefail
python=$1 version=$2 venv=$3
case $version in
  3.11 | 3.12 | 3.13) ;;
  *)
    echo "lora_bench needs Python 3.11, 3.12 or 3.13 with its module venv; ${python:-what the PATH has}" \
      "$([ -n "$version" ] && echo "is $version" || echo "cannot be run"). Install one, or name one: make PYTHON=/path/to/python3.13" >&2
    exit 1
    ;;
esac
if has=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null); then
  if [ "$has" != "$version" ]; then
    echo "$venv has Python $has, but $python is $version; remove $venv, or keep both: make VENV=.venv-$version" \
      "PYTHON=$python" >&2
    exit 1
  fi
elif [ -e "$venv/pyvenv.cfg" ]; then # its Python is gone
  "$python" -m venv --clear "$venv"
else
  "$python" -m venv "$venv"
fi
echo "Python $version ($("$python" -c 'import sys; print(sys.executable)')), packages into $venv"
