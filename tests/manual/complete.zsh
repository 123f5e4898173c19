# complete.zsh DIRECTORY LINE: what zsh offers behind LINE, with the completions of DIRECTORY.
zmodload zsh/zpty
zpty shell zsh -f -i
# Its line editor says when it is there, and when it has come to the end of the line.
zpty -w shell "PS1= PS2= RPS1=; unset zle_bracketed_paste; stty columns 400 rows 400; LISTMAX=0
fpath=(${(q)1:A} \$fpath); autoload -Uz compinit; compinit -u -D
zle-line-init() { print RE''ADY }; finish() { print DO''NE }
zle -N finish; bindkey '^T' finish; zle -N zle-line-init"
zpty -r -m shell answer '*READY*'
zpty -w -n shell "$2"$'\C-D\C-T'
zpty -r -m shell answer '*DONE*'
zpty -d shell
# Not what was typed.
print -r -- ${answer#*$2}
