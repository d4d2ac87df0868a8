#!/usr/bin/env bash
# Fetch axe-core, which `make browser` checks pages with, into .axe/ by npm: an exact version whose archive must have the hash.
#   tools/get_axe.sh
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=4.14.1
SHA512=FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==
TARGET=.axe/axe-$VERSION.min.js
[ -f "$TARGET" ] && { echo "$TARGET"; exit 0; }
command -v npm > /dev/null || { echo "tools/get_axe.sh: npm is not on the PATH; install Node.js" >&2; exit 1; }
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
npm pack --loglevel error --pack-destination "$WORK" "axe-core@$VERSION" > /dev/null
FOUND=$(openssl dgst -sha512 -binary "$WORK/axe-core-$VERSION.tgz" | openssl base64 -A)
if [ "$FOUND" != "$SHA512" ]; then
  echo "tools/get_axe.sh: axe-core-$VERSION.tgz has sha512 $FOUND, expected $SHA512; nothing was installed" >&2
  exit 1
fi
tar -xzf "$WORK/axe-core-$VERSION.tgz" -C "$WORK" package/axe.min.js
mkdir -p .axe
mv "$WORK/package/axe.min.js" "$TARGET"
echo "$TARGET"
