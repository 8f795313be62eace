#!/bin/sh
# Builds the native addon of @tensorflow/tfjs-node against the libtensorflow inside the Python package tensorflow-cpu, for
# machines that reach npm and PyPI but not the host that tfjs-node fetches its library from. Everything goes into the folder that is
# named, outside of this repository.
#
# Needs npm, a C++ compiler, and a Python that has what requirements.txt lists: MILLRACE_BENCH_PYTHON, default python3.
#
# Run: sh bench/peers/build-tfjs-node.sh FOLDER
set -eu

folder=${1:?"name the folder to build in: sh bench/peers/build-tfjs-node.sh FOLDER"}
python=${MILLRACE_BENCH_PYTHON:-python3}
manifest=$(cd "$(dirname "$0")/../.." && pwd)/package.json
version=$(node -p 'require(process.argv[1]).optionalDependencies["@tensorflow/tfjs-node"]' "$manifest")

# Found without importing it, which takes seconds.
tensorflow=$("$python" -c 'from importlib.util import find_spec; print(find_spec("tensorflow").submodule_search_locations[0])')

mkdir -p "$folder"
cd "$folder"
echo '{ "name": "tfjs-node-build", "private": true }' > package.json
# The headers are those of Node's stable native interface, which the addon alone uses.
npm install --ignore-scripts --no-audit --no-fund "@tensorflow/tfjs-node@$version" node-api-headers@1.9.0

package=node_modules/@tensorflow/tfjs-node
mkdir -p "$package/lib/napi-v8"
"${CXX:-c++}" -shared -fPIC -O2 -std=c++17 -DNAPI_VERSION=8 \
  -I node_modules/node-api-headers/include -I "$tensorflow/include" \
  "$package/binding/tfjs_backend.cc" "$package/binding/tfjs_binding.cc" \
  -L "$tensorflow" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -Wl,-rpath,"$tensorflow" \
  -o "$package/lib/napi-v8/tfjs_binding.node"

node -e 'const tf = require("@tensorflow/tfjs-node"); tf.matMul(tf.ones([2, 2]), tf.ones([2, 2])).dataSync(); console.log("built")'
