"""How the agents are reached: log in as this user, who may use sudo without a password."""

ssh_user = "ubuntu"
_sudo = True
