"""How hosts outside the cluster are reached: this user may use sudo without a password."""

ssh_user = "ubuntu"
_sudo = True
