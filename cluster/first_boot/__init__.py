"""What a fresh Ubuntu is told before anybody logs in: cloud-init's seeds and autoinstall's."""
