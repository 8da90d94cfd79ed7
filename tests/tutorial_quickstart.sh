#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The first block of docs/tutorial.md, on this machine: a clone of this tree, with what was changed in it, is built
# and installed by tools/quickstart.sh, whose demonstration says what is on the page.
#
# Usage: tutorial_quickstart.sh [--record], as tests/guest/tutorial.py has it.
set -euo pipefail

top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
folder=$(mktemp -d "${TMPDIR:-/tmp}/ckpt-tutorial.XXXXXX")
readonly top folder origin=$folder/origin.git
trap 'rm -rf -- "$folder"' EXIT

# A repository of its own, since that of the tree need not have all of it, or be there at all.
keep_tree() {
  local git=(git --git-dir="$origin" --work-tree="$top" -c user.name=tests -c user.email=tests@localhost)
  git init -q --bare "$origin"
  "${git[@]}" add --all
  "${git[@]}" commit -q -m "The tree"
}

keep_tree
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.$origin.insteadOf GIT_CONFIG_VALUE_0=https://example.org/ckpt.git
cd "$folder"
/usr/bin/python3 "$top/tests/guest/tutorial.py" "$top/docs/tutorial.md" --by tests/tutorial_quickstart.sh "$@"
