# The set-up of every interactive bash here; a user's ~/.bashrc is read after it and wins.
[ -n "${PS1-}" ] || return

shopt -s checkwinsize histappend
HISTCONTROL=ignoreboth:erasedups
HISTSIZE=50000
HISTFILESIZE=50000

[ -n "${BASH_COMPLETION_VERSINFO-}" ] || . /usr/share/bash-completion/bash_completion
. /usr/lib/git-core/git-sh-prompt
PS1='\[\e[34m\]\w\[\e[35m\]$(__git_ps1 " %s")\[\e[0m\] \$ '

alias ls='ls --color=auto' ll='ls -lh' la='ls -lhA' grep='grep --color=auto'

[ "$SHLVL" -gt 1 ] || home-usage
