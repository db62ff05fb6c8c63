# Completion of frontrunner for bash. Made by `frontrunner completion bash`.
@WORDS@

_frontrunner() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local command= options= kind= word name before=() IFS=$' \t\n'
  # bash makes a word of each = and a file name of what follows
  if [[ $current == = || $previous == = ]]; then
    [[ $current == = ]] && current= || previous=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $previous == --* ]] || return  # the value of a key
  fi
  _frontrunner_find
  COMPREPLY=()
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
    return
  fi
  case $kind in
    words\ *) COMPREPLY=($(compgen -W "${kind#words }" -- "$current")) ;;
    key)
      COMPREPLY=($(compgen -W "$_frontrunner_key" -- "$current"))
      compopt -o nospace
      ;;
    run | sweep | model | machine | preset)
      name=_frontrunner_$kind
      COMPREPLY=($(compgen -W "${!name}" -- "$current"))
      [[ $kind == preset ]] || _frontrunner_files yaml
      ;;
    folder) _frontrunner_files folder ;;
    file) _frontrunner_files any ;;
  esac
  [[ $kind == run || $kind == folder ]] && _frontrunner_runs
}

# Names are compared, never expanded: a folder may be called $(anything).
_frontrunner_files() {
  local name
  compopt -o filenames
  while IFS= read -r name; do
    if [[ -d $name || $1 == any || $1 == yaml && $name == *.@(yaml|yml|json) ]]; then
      COMPREPLY+=("$name")
    fi
  done < <(compgen -f -- "$current")
}

_frontrunner_runs() {
  local name
  for name in runs/*/run.yaml; do
    name=${name%/run.yaml}
    [[ -d $name && $name == "$current"* && $current != runs/* ]] && COMPREPLY+=("$name")
  done
}

_frontrunner_find() {
  before=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
@COMMANDS@
}

complete -F _frontrunner frontrunner
