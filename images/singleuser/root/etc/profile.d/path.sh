# A login shell, as JupyterLab's terminals are, has lost the image's PATH to /etc/profile: give it back.
PATH=/usr/local/bin:/usr/bin:/bin:/opt/jupyter/bin:$HOME/.local/bin
