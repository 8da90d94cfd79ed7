# SPDX-License-Identifier: Apache-2.0
# Completion for bash. Commands, options and checkpoints are asked of the tool itself, so that they
# are always those of this version and this volume.

# A command of vm's is two words.
_ckpt_tool_help() { # tool command?
  local -a names
  read -ra names <<< "${2:-}"
  "$1" "${names[@]}" --help 2> /dev/null
}

_ckpt_tool_commands() { # tool command?
  _ckpt_tool_help "$@" | sed -n 's/^  \([a-z]\{1,\}\)   .*/\1/p'
}

_ckpt_tool_options() { # tool command?
  _ckpt_tool_help "$@" | sed -n 's/^  \(-[a-z],\)\{0,1\}\(--[a-z-]\{1,\}\).*/\2/p'
}

# Those that are followed by a word of their own.
_ckpt_tool_valued() { # tool command
  _ckpt_tool_help "$@" | sed -n 's/^  \(--[a-z-]\{1,\}\) [A-Z].*/\1/p'
}

_ckpt_tool_policies() { # tool command
  _ckpt_tool_help "$@" | sed -n 's/^  --clients POLICY:{\([a-z,]*\)}.*/\1/p' | tr , '\n'
}

_ckpt_tool_checkpoints() { # tool volume state-folder?
  "$1" -q ${3:+--state "$3"} list "$2" 2> /dev/null
  echo last
}

# What follows --state; bash makes `=` a word of its own.
_ckpt_tool_state() { # the words of the line
  local word value='' expected=''
  for word in "$@"; do
    if [[ $word == --state=* ]]; then
      value=${word#*=}
    elif [ "$word" = --state ]; then
      expected=yes
    elif [ -n "$expected" ] && [ "$word" != = ]; then
      value=$word expected=''
    fi
  done
  printf '%s' "$value"
}

# The words before the cursor that are no options, nor values of options.
_ckpt_tool_positionals() { # tool, then these words
  local tool=$1 word command='' skip=0
  shift
  for word in "$@"; do
    if [ "$word" = = ]; then
      skip=1
    elif [ "$skip" -gt 0 ]; then
      skip=$((skip - 1))
    elif [[ $word == -* ]]; then
      if _ckpt_tool_valued "$tool" "$command" | grep -qxe "$word"; then skip=1; fi
    else
      if [ "$command" = vm ]; then command="vm $word"; fi
      command=${command:-$word}
      printf '%s\n' "$word"
    fi
  done
}

_ckpt_tool() {
  local tool=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local -a given
  if [ "$word" = = ]; then word=''; fi
  if [ "$previous" = = ]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi
  mapfile -t given < <(_ckpt_tool_positionals "$tool" "${COMP_WORDS[@]:1:COMP_CWORD - 1}")
  if [ "${given[0]:-}" = vm ] && [ "${#given[@]}" -gt 1 ]; then
    given=("vm ${given[1]}" "${given[@]:2}")
  fi
  local command=${given[0]:-} volume=${given[1]:-} words=''
  COMPREPLY=()
  if [ "$previous" = --clients ]; then
    words=$(_ckpt_tool_policies "$tool" "$command")
  elif [[ $previous == -* ]] && _ckpt_tool_valued "$tool" "$command" | grep -qxe "$previous"; then
    return 0  # most often a path: the shell completes it
  elif [[ $word == -* ]]; then
    words=$(_ckpt_tool_options "$tool" "$command")
  elif [ -z "$command" ] || [ "$command" = vm ]; then
    words=$(_ckpt_tool_commands "$tool" "$command")
  elif [ "${#given[@]}" -eq 2 ] && _ckpt_tool_help "$tool" "$command" | grep -q '^  ID'; then
    words=$(_ckpt_tool_checkpoints "$tool" "$volume" "$(_ckpt_tool_state "${COMP_WORDS[@]:1}")")
  else
    return 0  # a path as well
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _ckpt_tool ckpt-tool
