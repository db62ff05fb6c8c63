#compdef frontrunner
# Completion of frontrunner for zsh. Made by `frontrunner completion zsh`.
@WORDS@

_frontrunner() {
  local previous=${words[CURRENT-1]} command= options= kind= word name
  local -a before=("${(@)words[2,CURRENT-1]}")
  if [[ $PREFIX == --*=* ]]; then
    previous=${PREFIX%%=*}
    compset -P '*='
  elif [[ $PREFIX == *=* ]]; then
    return 1  # the value of a key
  fi
@COMMANDS@
  if [[ $PREFIX == -* ]]; then
    compadd -- ${=options}
    return
  fi
  case $kind in
    words\ *) compadd -- ${=kind#words } ;;
    key) compadd -S '' -- ${=_frontrunner_key} ;;
    run | sweep | model | machine | preset)
      name=_frontrunner_$kind
      compadd -- ${=${(P)name}}
      [[ $kind == preset ]] || _files -g '*.(yaml|yml|json)'
      ;;
    folder) _files -/ ;;
    file) _files ;;
  esac
  if [[ ( $kind == run || $kind == folder ) && $PREFIX != runs/* ]]; then
    for name in runs/*/run.yaml(N); do compadd -f -- "${name%/run.yaml}"; done
  fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _frontrunner "$@"
else
  compdef _frontrunner frontrunner
fi
