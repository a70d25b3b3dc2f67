"""How the gateway is reached: log in as this user, who may use sudo without a password."""

ssh_user = "ubuntu"
_sudo = True
