#!/bin/sh
# Builds Jaeger v2 for test/telemetry/signals.test.ts and prints the path of the program:
#
#     TEST_JAEGER=$(sh test/helpers/build-jaeger.sh) npm test -- telemetry/signals
#
# Needs Go and its module proxy. 2,300 packages are compiled: 16 minutes on two cores that others used as well. The second time it is there.
# Jaeger's page is not part of its module: the program has the query API, which is all that the test asks.
set -eu

# Modules of Jaeger 2 bear the numbers of version 1; this one is 2.13.0.
version=v1.76.0
package=github.com/jaegertracing/jaeger/cmd/jaeger
folder=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/jaeger-$version

if [ "$(go env GOSUMDB)" = off ]; then
  echo "GOSUMDB=off: Jaeger's modules would not be checked against Go's checksum database" >&2
  exit 1
fi
if [ ! -x "$folder/jaeger" ]; then
  mkdir -p "$folder"
  cd "$folder"
  # A module of its own: go install refuses a program whose go.mod replaces modules.
  [ -f go.mod ] || go mod init millrace.test/jaeger >&2
  go get -tool "$package@$version" >&2
  go build -trimpath -ldflags="-s -w" -o jaeger.partial "$package" >&2
  mv jaeger.partial jaeger
fi
echo "$folder/jaeger"
